//! A stream for a visit, on whichever tunnel of the agent has room.

use futures_util::future::select_ok;

use super::registry::Candidate;
use super::tunnel::VisitStream;

/// A visit's way to its agent.
#[derive(Debug)]
pub(crate) struct Passage {
    /// The tunnel and the endpoint.
    pub(crate) to: Candidate,
    /// The stream, on which nothing has been sent.
    pub(crate) opened: VisitStream,
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// No tunnel of the agent is here that may take it.
    #[error("the agent is not connected")]
    Offline,
    /// Those that were here take no more visits: they have died, or another has taken their place.
    #[error("the agent's tunnels have closed")]
    Closed,
}

/// Opens a stream on the first of these tunnels that has room now; if none has, on the first that will.
///
/// Waits while all are full, so the caller sets a deadline. Cancel safe.
pub(crate) async fn open(mut candidates: Vec<Candidate>) -> Result<Passage, NotOpened> {
    if candidates.is_empty() {
        return Err(NotOpened::Offline);
    }
    let attempt = |at: usize| {
        let tunnel = candidates[at].tunnel.clone();
        Box::pin(async move { tunnel.open().await.map(|opened| (at, opened)) })
    };
    // Polled in order: of those that are ready at once it is the first.
    match select_ok((0..candidates.len()).map(attempt)).await {
        Ok(((at, opened), _)) => Ok(Passage {
            to: candidates.swap_remove(at),
            opened,
        }),
        Err(_) => Err(NotOpened::Closed),
    }
}
