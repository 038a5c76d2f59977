//! All links of an agent. Each is kept for itself, and what befalls one is nothing to the others.
//!
//! ```text
//!        ┌──────────────── wait ◀──────────────┐
//!        ▼                                     │
//!      kept ──── a fault of ours ──────────────┤
//!        └────── refused for good ─────────────┤
//!                                              └── no link is left that is not ──▶ end
//! ```
//!
//! A link waits out its relay's outages by itself (`link/keeper.rs`), and ends by itself only when
//! it is told to, or refused for good.

use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tunnel_common::escape::Escaped;
use tunnel_common::wire::frame::Refused;

use crate::relay_addr::RelayAddr;

/// The wait after a relay has refused for good, while others have not: its operator may change his mind
/// without a restart of an agent that serves elsewhere.
const REFUSED_WAIT: Duration = Duration::from_secs(10 * 60);
/// The wait after a fault of ours: it may come again at once, and each time is an entry in the log.
const FAULT_WAIT: Duration = Duration::from_secs(10);

/// Several links that are kept.
#[derive(Debug)]
pub(crate) struct Links<K> {
    keep: K,
    shutdown: CancellationToken,
    links: Vec<Link>,
    tasks: JoinSet<Result<(), Refused>>,
}

/// One of them.
#[derive(Debug)]
struct Link {
    relay: RelayAddr,
    task: Option<Id>,
    /// Until when it is left alone because the relay refuses for good.
    refused_until: Option<Instant>,
}

impl<K, F> Links<K>
where
    K: Fn(usize) -> F,
    F: Future<Output = Result<(), Refused>> + Send + 'static,
{
    /// A link to each of `relays`. `keep` keeps the one of this number, until `shutdown` fires or the relay
    /// refuses for good.
    pub(crate) fn new(
        relays: impl IntoIterator<Item = RelayAddr>,
        keep: K,
        shutdown: CancellationToken,
    ) -> Self {
        let link = |relay| Link {
            relay,
            task: None,
            refused_until: None,
        };
        Self {
            keep,
            shutdown,
            links: relays.into_iter().map(link).collect(),
            tasks: JoinSet::new(),
        }
    }

    /// Keeps all of them until it is shut down. Every relay's refusal for good ends it before. Dropping the
    /// future cuts off all of them.
    pub(crate) async fn run(mut self) -> Result<(), Refused> {
        for number in 0..self.links.len() {
            self.begin(number, Instant::now());
        }
        while let Some(ended) = self.tasks.join_next_with_id().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((task, Err(refused))) => self.is_refused(task, refused)?,
                Err(fault) => self.has_failed(fault.id()),
            }
        }
        Ok(())
    }

    /// Keeps the link of this number from `at` on.
    fn begin(&mut self, number: usize, at: Instant) {
        let (keeping, shutdown) = (Box::pin((self.keep)(number)), self.shutdown.clone());
        let task = self.tasks.spawn(async move {
            match shutdown.run_until_cancelled(sleep_until(at)).await {
                Some(()) => keeping.await,
                None => Ok(()),
            }
        });
        if let Some(link) = self.links.get_mut(number) {
            link.task = Some(task.id());
        }
    }

    /// A relay refuses for good. It is asked again, unless that is the last word of all of them.
    fn is_refused(&mut self, task: Id, refused: Refused) -> Result<(), Refused> {
        let now = Instant::now();
        let again = now + REFUSED_WAIT;
        let Some((number, link)) = self.find(task) else {
            return Ok(());
        };
        link.refused_until = Some(again);
        let (relay, text) = (link.relay.clone(), Escaped(&refused.text));
        let is_left_alone = |link: &Link| link.refused_until.is_some_and(|until| until > now);
        if self.links.iter().all(is_left_alone) {
            return Err(refused);
        }
        let minutes = REFUSED_WAIT.as_secs() / 60;
        error!(
            "the relay {relay} refuses this agent, which goes on with the others and asks again in \
             {minutes} minutes: {text}"
        );
        self.begin(number, again);
        Ok(())
    }

    /// A link's task has ended by a panic, which the log has told.
    fn has_failed(&mut self, task: Id) {
        let Some((number, link)) = self.find(task) else {
            return;
        };
        let relay = &link.relay;
        error!("a fault of ours has ended the link to {relay}; it begins anew in {FAULT_WAIT:?}");
        self.begin(number, Instant::now() + FAULT_WAIT);
    }

    fn find(&mut self, task: Id) -> Option<(usize, &mut Link)> {
        let mut links = self.links.iter_mut().enumerate();
        links.find(|(_, link)| link.task == Some(task))
    }
}

#[cfg(test)]
mod tests;
