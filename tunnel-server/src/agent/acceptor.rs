//! Takes QUIC connections in, and hands each to a session of its own.

use std::sync::Arc;

use quinn::{Endpoint, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::quic;
use crate::state::State;

/// Handshakes at one time. Each costs a signature and some kilobytes before we know who it is.
const MAX_HANDSHAKES: usize = 512;
/// From so many on, a peer must first prove that it receives at its address (RFC 9000, 8.1.2): a
/// flood from forged addresses stops here.
const HANDSHAKES_BEFORE_RETRY: usize = 256;

/// Accepts agents until shutdown.
pub(crate) async fn accept_agents(endpoint: Endpoint, state: Arc<State>) {
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let accepting = async {
        while let Some(incoming) = endpoint.accept().await {
            if let Some((incoming, permit)) = admit(incoming, &permits) {
                state
                    .tasks
                    .spawn(quic::serve(incoming, permit, state.clone()));
            }
        }
    };
    let _ = state.shutdown.run_until_cancelled(accepting).await;
}

/// Lets a connection attempt in, or answers it without keeping anything.
fn admit(incoming: Incoming, permits: &Arc<Semaphore>) -> Option<(Incoming, OwnedSemaphorePermit)> {
    let Ok(permit) = permits.clone().try_acquire_owned() else {
        incoming.refuse();
        return None;
    };
    let pending = MAX_HANDSHAKES - permits.available_permits();
    if pending > HANDSHAKES_BEFORE_RETRY && incoming.may_retry() {
        // Fails only for an attempt that may not be retried, which was just asked.
        let _ = incoming.retry();
        return None;
    }
    Some((incoming, permit))
}
