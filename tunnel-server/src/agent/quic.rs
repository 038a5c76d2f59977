//! Agents that come over UDP: the QUIC handshake.

use std::sync::Arc;

use quinn::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::quic::{describe, exporter};
use tunnel_common::wire::code::Code;

use super::connection::Connection;
use super::identity;
use super::session::{self, Proven};
use crate::state::State;

/// Serves one connection attempt to its end. Dropping the future closes the connection.
pub(crate) async fn serve(incoming: Incoming, permit: OwnedSemaphorePermit, state: Arc<State>) {
    let address = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
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
        Some(proven) => session::serve(&connection, proven, address, &state).await,
        None => connection.close(Code::Protocol),
    }
}
