//! The table of all live visits.
//!
//! One table serves whoever must look at visits or end them: shutdown today, limits, rules and an
//! access log later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_common::identity::ClientId;
use tunnel_common::splice::options::Meter;
use tunnel_common::stream::header::VisitId;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::EndpointRef;

/// All live visits of the process.
#[derive(Debug)]
pub(crate) struct Visits {
    live: DashMap<VisitId, Arc<Visit>>,
    /// Whoever is here, from accept on.
    present: TaskTracker,
    /// Set when every visit is ended, those included that are entered later.
    all_ended: OnceLock<Code>,
    prefix: [u8; 8],
    next: AtomicU64,
}

/// One live visit.
#[derive(Debug)]
pub(crate) struct Visit {
    /// The agent that it goes to.
    pub(crate) agent: ClientId,
    /// The endpoint of that agent.
    pub(crate) endpoint: EndpointRef,
    /// Bytes so far: to the agent, and back.
    pub(crate) meter: Arc<Meter>,
    ended: CancellationToken,
    code: OnceLock<Code>,
}

impl Visits {
    /// An empty table. `prefix` must be random: it tells the ids of this process from others'.
    pub(crate) fn new(prefix: [u8; 8]) -> Self {
        Self {
            live: DashMap::new(),
            present: TaskTracker::new(),
            all_ended: OnceLock::new(),
            prefix,
            next: AtomicU64::new(0),
        }
    }

    /// An id that no other visit has.
    pub(crate) fn draw_id(&self) -> VisitId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prefix);
        id[8..].copy_from_slice(&number.to_be_bytes());
        VisitId(id)
    }

    /// A visitor is here, until the token is dropped; what he wants is not known yet.
    pub(crate) fn arrives(&self) -> TaskTrackerToken {
        self.present.token()
    }

    /// Whether any visitor is here.
    pub(crate) fn are_there(&self) -> bool {
        !self.present.is_empty()
    }

    /// Ready when no visitor is here any more. Cancel safe.
    pub(crate) async fn gone(&self) {
        self.present.close();
        self.present.wait().await;
    }

    /// Enters a visit, until the guard is dropped.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: VisitId,
        agent: ClientId,
        endpoint: EndpointRef,
    ) -> LiveVisit {
        let visit = Arc::new(Visit {
            agent,
            endpoint,
            meter: Arc::default(),
            ended: CancellationToken::new(),
            code: OnceLock::new(),
        });
        self.live.insert(id, visit.clone());
        // Behind the insert: whoever ends all sees this visit, or is seen here.
        if let Some(code) = self.all_ended.get() {
            visit.end(*code);
        }
        LiveVisit {
            id,
            visit,
            table: self.clone(),
        }
    }

    /// Ends every visit, also those that are entered from now on. The first code counts.
    pub(crate) fn end_all(&self, code: Code) {
        let _ = self.all_ended.set(code);
        for visit in &self.live {
            visit.end(code);
        }
    }

    /// How many visits are live.
    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }
}

impl Visit {
    /// Ends the visit. The first code counts.
    pub(crate) fn end(&self, code: Code) {
        let _ = self.code.set(code);
        self.ended.cancel();
    }

    /// Waits until somebody ends the visit, and says with which code. Cancel safe.
    pub(crate) async fn ended(&self) -> Code {
        self.ended.cancelled().await;
        self.code.get().copied().unwrap_or(Code::None)
    }
}

/// A visit's place in the table, given up when dropped.
#[derive(Debug)]
pub(crate) struct LiveVisit {
    id: VisitId,
    visit: Arc<Visit>,
    table: Arc<Visits>,
}

impl std::ops::Deref for LiveVisit {
    type Target = Visit;

    fn deref(&self) -> &Visit {
        &self.visit
    }
}

impl Drop for LiveVisit {
    fn drop(&mut self) {
        self.table.live.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(table: &Arc<Visits>) -> LiveVisit {
        let agent = ClientId::of_spki(b"an agent");
        table.enter(table.draw_id(), agent, EndpointRef::default())
    }

    #[tokio::test]
    async fn a_visit_is_in_the_table_while_it_lives_and_can_be_ended_from_there() {
        let table = Arc::new(Visits::new([1; 8]));
        let (first, second) = (enter(&table), enter(&table));
        assert_eq!(table.len(), 2);
        drop(first);
        assert_eq!(table.len(), 1);
        table.end_all(Code::Draining);
        second.end(Code::Policy);
        assert_eq!(second.ended().await, Code::Draining);
        assert_eq!(enter(&table).ended().await, Code::Draining);
        drop(second);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn a_visitor_is_there_before_he_is_known_and_until_he_has_gone() {
        let table = Visits::new([1; 8]);
        let here = table.arrives();
        assert!(table.are_there());
        let gone = table.gone();
        tokio::pin!(gone);
        let is_gone = tokio::time::timeout(std::time::Duration::ZERO, &mut gone);
        assert!(is_gone.await.is_err());
        drop(here);
        gone.await;
        assert!(!table.are_there());
    }

    #[test]
    fn ids_differ() {
        let table = Visits::new([1; 8]);
        assert_ne!(table.draw_id(), table.draw_id());
    }
}
