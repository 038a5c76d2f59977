//! One tunnel to an agent, as the visitors' side sees it: something to open streams on.

use std::sync::Arc;

use futures_util::future::select_ok;
use quinn::Connection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tunnel_common::budget::TunnelBudget;
use tunnel_common::identity::ClientId;
use tunnel_common::stream::quic::QuicStream;
use tunnel_common::wire::frame::EndpointRef;

/// A tunnel that takes visits.
#[derive(Debug)]
pub(crate) struct Tunnel {
    client: ClientId,
    endpoint: EndpointRef,
    connection: Connection,
    budget: TunnelBudget,
    visits: TaskTracker,
    retired: CancellationToken,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum OpenError {
    /// No tunnel of this agent is here.
    #[error("the agent is not connected")]
    Offline,
    /// All its tunnels have as many streams as they take, or do not answer.
    #[error("no tunnel of the agent had room in time")]
    Timeout,
}

/// A stream for one visit.
#[derive(Debug)]
pub(crate) struct OpenedStream {
    /// The tunnel that it belongs to.
    pub(crate) tunnel: Arc<Tunnel>,
    /// The stream, on which nothing has been sent.
    pub(crate) stream: QuicStream,
    /// Counts the visit as in flight until it is dropped.
    pub(crate) in_flight: TaskTrackerToken,
}

impl Tunnel {
    /// A tunnel of the agent that proved the key `client`, for its endpoint `endpoint`.
    pub(crate) fn new(
        client: ClientId,
        endpoint: EndpointRef,
        connection: Connection,
        budget: TunnelBudget,
    ) -> Self {
        let (visits, retired) = (TaskTracker::new(), CancellationToken::new());
        Self {
            client,
            endpoint,
            connection,
            budget,
            visits,
            retired,
        }
    }

    /// Whose tunnel it is.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// The endpoint that visits are for, in the agent's own words.
    pub(crate) fn endpoint(&self) -> &EndpointRef {
        &self.endpoint
    }

    /// The account of what its visitors stall.
    pub(crate) fn budget(&self) -> &TunnelBudget {
        &self.budget
    }

    /// How many visits run over it.
    pub(crate) fn visits_in_flight(&self) -> usize {
        self.visits.len()
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

    /// Opens a stream; waits while the agent grants no more, so the caller sets a deadline.
    async fn open(self: &Arc<Self>) -> Result<OpenedStream, quinn::ConnectionError> {
        let in_flight = self.visits.token();
        let (send, recv) = self.connection.open_bi().await?;
        Ok(OpenedStream {
            tunnel: self.clone(),
            stream: QuicStream::new(send, recv),
            in_flight,
        })
    }
}

/// Opens a stream on the first of `tunnels` that has room now; if none has, on the first that will.
///
/// Waits for ever while all are full, so the caller sets a deadline. Cancel safe.
pub(crate) async fn open_on_any(tunnels: &[Arc<Tunnel>]) -> Result<OpenedStream, OpenError> {
    if tunnels.is_empty() {
        return Err(OpenError::Offline);
    }
    let attempts = tunnels.iter().map(|tunnel| Box::pin(tunnel.open()));
    match select_ok(attempts).await {
        Ok((opened, _)) => Ok(opened),
        // A tunnel that has just died is no tunnel.
        Err(_) => Err(OpenError::Offline),
    }
}
