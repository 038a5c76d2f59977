//! One tunnel to an agent, as the visitors' side sees it: something to open streams on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_common::budget::TunnelBudget;
use tunnel_common::stream::tunnel::TunnelStream;

use super::connection::Connection;

/// The connection of an agent, whatever it serves.
#[derive(Debug)]
pub(crate) struct Tunnel {
    connection: Connection,
    budget: TunnelBudget,
    visits: TaskTracker,
    /// In how many places of the registry it is: one for each of its keys.
    places: AtomicUsize,
    has_lost_place: AtomicBool,
    retired: CancellationToken,
    trust: Mutex<Trust>,
    doubt: Notify,
}

/// Whether anybody is at the other end.
///
/// ```text
///             doubt              ask               pong to that ping
///   Trusted ─────────▶ Doubted ───────▶ Asked(n) ────────────────────▶ Trusted
///                         ▲               │ doubt
///                         └───────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Trusted,
    Doubted,
    Asked(u64),
}

/// A stream for one visit.
#[derive(Debug)]
pub(crate) struct VisitStream {
    /// The stream, on which nothing has been sent.
    pub(crate) stream: TunnelStream,
    /// Counts the visit as in flight until it is dropped.
    pub(crate) in_flight: TaskTrackerToken,
}

/// The tunnel takes no more visits.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the tunnel is closed")]
pub(crate) struct Closed;

impl Tunnel {
    /// A tunnel over this connection.
    pub(crate) fn new(connection: Connection, budget: TunnelBudget) -> Self {
        Self {
            connection,
            budget,
            visits: TaskTracker::new(),
            places: AtomicUsize::new(0),
            has_lost_place: AtomicBool::new(false),
            retired: CancellationToken::new(),
            trust: Mutex::new(Trust::Trusted),
            doubt: Notify::new(),
        }
    }

    /// The connection under it.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The account of what its visitors stall.
    pub(crate) fn budget(&self) -> &TunnelBudget {
        &self.budget
    }

    /// How many visits run over it.
    pub(crate) fn visits_in_flight(&self) -> usize {
        self.visits.len()
    }

    /// Says that the agent may be gone: it left a visit unanswered, or a new process of it is here.
    /// It gets no visits until it has answered a ping, unless nobody else serves its agent.
    pub(crate) fn doubt(&self) {
        *self.trust() = Trust::Doubted;
        self.doubt.notify_one();
    }

    /// Whether a visit that came now might be left without an answer.
    pub(crate) fn is_doubted(&self) -> bool {
        *self.trust() != Trust::Trusted
    }

    /// Ready when the agent should be asked whether it is there. Cancel safe.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// A ping with this number goes out because of a doubt.
    pub(crate) fn asked(&self, nonce: u64) {
        *self.trust() = Trust::Asked(nonce);
    }

    /// The agent has answered the ping with this number.
    pub(crate) fn answered(&self, nonce: u64) {
        let mut trust = self.trust();
        if matches!(*trust, Trust::Asked(asked) if asked <= nonce) {
            *trust = Trust::Trusted;
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has got one more place in the registry.
    pub(crate) fn has_place(&self) {
        self.places.fetch_add(1, Ordering::AcqRel);
    }

    /// It has given up a place by itself. If it was the last, and others were taken from it before,
    /// the agent must not think that it serves.
    pub(crate) fn gives_up_place(&self) {
        let was_last = self.places.fetch_sub(1, Ordering::AcqRel) == 1;
        if was_last && self.has_lost_place.load(Ordering::Acquire) {
            self.retired.cancel();
        }
    }

    /// Another tunnel has got a place of it. Without any no more visits come: when the last is over,
    /// the tunnel closes.
    pub(crate) fn is_displaced(&self) {
        self.has_lost_place.store(true, Ordering::Release);
        if self.places.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.retired.cancel();
        }
    }

    /// Whether it has lost all its places.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Ready when the tunnel is retired and its last visit is over. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.retired.cancelled().await;
        self.visits.close();
        self.visits.wait().await;
    }

    /// Opens a stream; waits while the agent grants no more, so the caller sets a deadline. Cancel
    /// safe.
    pub(crate) async fn open(&self) -> Result<VisitStream, Closed> {
        let in_flight = self.visits.token();
        // Retired before this visit was counted, it may already be closing.
        if self.retired.is_cancelled() {
            return Err(Closed);
        }
        let stream = self.connection.open().await.map_err(|_| Closed)?;
        Ok(VisitStream { stream, in_flight })
    }
}
