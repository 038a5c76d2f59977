//! One tunnel to an agent, as the visitors' side sees it: something to open streams on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_common::budget::TunnelBudget;
use tunnel_common::hostname::Hostname;
use tunnel_common::stream::tunnel::TunnelStream;

use super::challenges::Challenges;
use super::connection::Connection;
use super::registry::lock::Lock as _;
use super::registry::seats::{Seats, Stay};

/// The connection of an agent, whatever it serves.
#[derive(Debug)]
pub(crate) struct Tunnel {
    connection: Connection,
    budget: TunnelBudget,
    visits: TaskTracker,
    seats: Mutex<Seats>,
    challenges: Mutex<Challenges>,
    retired: CancellationToken,
    trust: Mutex<Trust>,
    /// Whether the agent should be asked if it is there.
    question: Notify,
    /// Whether the agent should be told that its process leads.
    lead: Notify,
    /// Changes when a visit that waits for its answer should look whether another tunnel is better.
    news: watch::Sender<()>,
}

/// Whether anybody is at the other end.
///
/// ```text
///             doubt              ask               pong to that ping
///   Trusted ─────────▶ Doubted ───────▶ Asked(n) ────────────────────▶ Trusted
///      │                                  │ no pong in time    pong      ▲
///      └── a ping was left unanswered ────┴─▶ Suspect(n) ────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Trusted,
    Doubted,
    Asked(u64),
    /// Visits that have no answer yet need not wait for it here.
    Suspect(u64),
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
            seats: Mutex::default(),
            challenges: Mutex::default(),
            retired: CancellationToken::new(),
            trust: Mutex::new(Trust::Trusted),
            question: Notify::new(),
            lead: Notify::new(),
            news: watch::Sender::new(()),
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

    /// Looks at or changes the challenges that its agent has announced on it. `act` must not wait for
    /// anything.
    pub(crate) fn challenges<R>(&self, act: impl FnOnce(&mut Challenges) -> R) -> R {
        self.challenges.with(act)
    }

    /// Whether its agent waits for a certificate authority at `host` now.
    pub(crate) fn is_challenged_at(&self, host: &Hostname) -> bool {
        let now = Instant::now();
        self.challenges(|challenges| challenges.turn(host, now).is_some())
    }

    /// Takes over the challenges that wait at another tunnel of its process, whose place it takes: the agent
    /// may not have announced them here yet.
    pub(crate) fn inherits(&self, from: &Self) {
        // One lock after the other.
        let pending = from.challenges(|challenges| challenges.clone());
        let now = Instant::now();
        self.challenges(|challenges| challenges.inherit(&pending, now));
    }

    /// How many visits run over it.
    pub(crate) fn visits_in_flight(&self) -> usize {
        self.visits.len()
    }

    /// Wants to know soon whether the agent is there: it has left a visit unanswered for a while.
    pub(crate) fn question(&self) {
        self.question.notify_one();
    }

    /// Ready when the agent should be asked whether it is there. Cancel safe.
    pub(crate) async fn questioned(&self) {
        self.question.notified().await;
    }

    /// Its process leads from now on, for one of the keys that it serves.
    pub(crate) fn takes_lead(&self) {
        self.lead.notify_one();
    }

    /// Ready when the agent should be told for which keys its process leads. Cancel safe.
    pub(crate) async fn has_lead(&self) {
        self.lead.notified().await;
    }

    /// Says that the agent may be gone: it left a visit unanswered for too long, or a new process of it
    /// is here. It gets no visits until it has answered a ping, unless nobody else serves its agent.
    pub(crate) fn doubt(&self) {
        let mut trust = self.trust();
        if *trust == Trust::Trusted {
            *trust = Trust::Doubted;
            drop(trust);
            self.question();
        }
    }

    /// Whether a visit that came now might be left without an answer.
    pub(crate) fn is_doubted(&self) -> bool {
        *self.trust() != Trust::Trusted
    }

    /// Whether it has left a ping unanswered: what waits for it had better go elsewhere.
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(*self.trust(), Trust::Suspect(_))
    }

    /// Whether it is doubted, and not asked yet.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        *self.trust() == Trust::Doubted
    }

    /// A ping with this number goes out. If the tunnel is doubted, its answer ends that.
    pub(crate) fn asked(&self, nonce: u64) {
        let mut trust = self.trust();
        if *trust == Trust::Doubted {
            *trust = Trust::Asked(nonce);
        }
    }

    /// The ping with this number was not answered in time.
    pub(crate) fn leaves_unanswered(&self, nonce: u64) {
        *self.trust() = Trust::Suspect(nonce);
        self.tell_visits();
    }

    /// The agent has answered the ping with this number. Gives whether that ends a doubt.
    pub(crate) fn answered(&self, nonce: u64) -> bool {
        let mut trust = self.trust();
        let ends_doubt = match *trust {
            Trust::Asked(asked) | Trust::Suspect(asked) => asked <= nonce,
            Trust::Trusted | Trust::Doubted => false,
        };
        if ends_doubt {
            *trust = Trust::Trusted;
        }
        ends_doubt
    }

    /// Visits that wait for their first answer should look whether another tunnel is better.
    pub(crate) fn tell_visits(&self) {
        self.news.send_replace(());
    }

    /// Changes when a visit that waits for its first answer should look for a better tunnel.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has got one more place in the registry.
    pub(crate) fn gains_place(&self) {
        self.seats.with(Seats::gained);
    }

    /// It has given up a place by itself.
    pub(crate) fn gives_up_place(&self) {
        self.stays(self.seats.with(Seats::gave_up));
    }

    /// Another tunnel has got a place of it. Without any no more visits come: when the last is over,
    /// the tunnel closes.
    pub(crate) fn loses_place(&self) {
        self.stays(self.seats.with(Seats::lost));
    }

    fn stays(&self, stay: Stay) {
        if stay == Stay::Retires {
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
        self.empties().await;
    }

    /// Ready when no visit runs over it. Cancel safe.
    pub(crate) async fn empties(&self) {
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
