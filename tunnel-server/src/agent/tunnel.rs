//! One tunnel to an agent, as the visitors' side sees it: something to open streams on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_common::budget::TunnelBudget;
use tunnel_common::identity::ClientId;
use tunnel_common::stream::quic::QuicStream;

/// How long a tunnel that left a visit unanswered comes after its agent's others.
const DOUBT: Duration = Duration::from_secs(30);

/// The connection of an agent, whatever it serves.
#[derive(Debug)]
pub(crate) struct Tunnel {
    client: ClientId,
    connection: Connection,
    budget: TunnelBudget,
    visits: TaskTracker,
    retired: CancellationToken,
    doubted_until: Mutex<Option<Instant>>,
}

/// A stream for one visit.
#[derive(Debug)]
pub(crate) struct VisitStream {
    /// The stream, on which nothing has been sent.
    pub(crate) stream: QuicStream,
    /// Counts the visit as in flight until it is dropped.
    pub(crate) in_flight: TaskTrackerToken,
}

impl Tunnel {
    /// A tunnel of the agent that proved the key `client`.
    pub(crate) fn new(client: ClientId, connection: Connection, budget: TunnelBudget) -> Self {
        Self {
            client,
            connection,
            budget,
            visits: TaskTracker::new(),
            retired: CancellationToken::new(),
            doubted_until: Mutex::default(),
        }
    }

    /// Whose tunnel it is.
    pub(crate) fn client(&self) -> ClientId {
        self.client
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

    /// Says that it left a visit without an answer: for half a minute others are tried first.
    pub(crate) fn doubt(&self) {
        *self.doubted_until() = Some(Instant::now() + DOUBT);
    }

    /// Whether a visit that came now might be left without an answer.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted_until()
            .is_some_and(|until| Instant::now() < until)
    }

    fn doubted_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.doubted_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that no more visits come: when the last is over, the tunnel closes.
    pub(crate) fn retire(&self) {
        self.retired.cancel();
    }

    /// Ready when the tunnel is retired and its last visit is over. Cancel safe.
    pub(crate) async fn drained(&self) {
        self.retired.cancelled().await;
        self.visits.close();
        self.visits.wait().await;
    }

    /// Opens a stream; waits while the agent grants no more, so the caller sets a deadline. Cancel
    /// safe.
    pub(crate) async fn open(&self) -> Result<VisitStream, quinn::ConnectionError> {
        let in_flight = self.visits.token();
        let (send, recv) = self.connection.open_bi().await?;
        Ok(VisitStream {
            stream: QuicStream::new(send, recv),
            in_flight,
        })
    }
}
