//! Agents that come over UDP: the QUIC handshake.

use std::sync::Arc;

use quinn::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::quic::{describe, exporter};
use tunnel_common::wire::code::Code;

use super::connection::Connection;
use super::identity;
use super::session::{self, Proven};
use super::turns::Turn;
use crate::state::State;

/// Serves one connection attempt, when its `turn` comes, to its end. Until then nothing is computed, and
/// no deadline runs. One that finds none of the `permits` is refused. Dropping the future closes the
/// connection.
pub(crate) async fn serve(
    incoming: Incoming,
    turn: Turn,
    permits: Arc<Semaphore>,
    state: Arc<State>,
) {
    let address = incoming.remote_address();
    // What is dropped is refused.
    let came = state.shutdown.run_until_cancelled(turn.comes()).await;
    if came.is_none() {
        return;
    }
    let Ok(permit) = permits.try_acquire() else {
        return debug!(%address, "no tunnel: too many handshakes at once");
    };
    // Apart, as what follows: an agent stays for long, and pays for the room that staying takes.
    let handshake = Box::pin(async { incoming.accept()?.await });
    let handshake = timeout(state.timeouts.quic.handshake, handshake);
    let connection = match state.shutdown.run_until_cancelled(handshake).await {
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(error))) => return debug!(%address, "no tunnel: {}", describe(&error)),
        Some(Err(_)) => return debug!(%address, "no tunnel: the handshake took too long"),
        None => return,
    };
    drop(permit);
    let proven = identity::proven_over_quic(&connection).zip(exporter(&connection));
    let proven = proven.map(|(main, exporter)| Proven { main, exporter });
    let connection = Connection::Quic(connection);
    match proven {
        Some(proven) => Box::pin(session::serve(&connection, proven, address, &state)).await,
        None => connection.close(Code::Protocol),
    }
}
