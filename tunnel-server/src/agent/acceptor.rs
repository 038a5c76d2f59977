//! Takes QUIC connections in, and hands each to a session of its own.

use std::sync::Arc;

use quinn::{Endpoint, Incoming};
use tokio::sync::Semaphore;

use super::quic;
use super::turns::Turn;
use crate::state::State;

/// Handshakes at one time. Each costs a signature and some kilobytes before we know who it is.
const MAX_HANDSHAKES: usize = 512;
/// From so many on, a peer must first prove that it receives at its address (RFC 9000, 8.1.2): a
/// flood from forged addresses stops here.
const HANDSHAKES_BEFORE_RETRY: usize = 256;

/// Accepts agents until shutdown. While the relay drains they are refused, and try another one.
pub(crate) async fn accept_agents(endpoint: Endpoint, state: Arc<State>) {
    let permits = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let accepting = async {
        while let Some(incoming) = endpoint.accept().await {
            if state.drain.has_begun() {
                incoming.refuse();
            } else if let Some((incoming, turn)) = admit(incoming, &permits, &state) {
                let serving = quic::serve(incoming, turn, permits.clone(), state.clone());
                state.tasks.spawn(serving);
            }
        }
    };
    let _ = state.shutdown.run_until_cancelled(accepting).await;
}

/// Gives a connection attempt its turn, or answers it without keeping anything.
fn admit(incoming: Incoming, permits: &Semaphore, state: &State) -> Option<(Incoming, Turn)> {
    let free = permits.available_permits();
    if free == 0 {
        incoming.refuse();
        return None;
    }
    // Before a turn is taken: a flood from forged addresses takes half of them at most.
    let is_crowded = MAX_HANDSHAKES - free >= HANDSHAKES_BEFORE_RETRY || state.turns.are_scarce();
    if is_crowded && incoming.may_retry() {
        // Fails only for an attempt that may not be retried, which was just asked.
        let _ = incoming.retry();
        return None;
    }
    match state.turns.take(incoming.remote_address().ip()) {
        Some(turn) => Some((incoming, turn)),
        None => {
            incoming.refuse();
            None
        }
    }
}
