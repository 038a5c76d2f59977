//! The way to the relay over UDP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, ConnectionError, Endpoint, EndpointConfig, TransportConfig, TransportErrorCode,
    VarInt,
};
use tokio::time::timeout;
use tunnel_common::coalesce;
use tunnel_common::quic::{self, Congestion, QuicTimeouts};

use super::connection::Connection;
use super::dial_error::{DialError, TlsError};
use super::udp;

/// Visits that the relay may have open at one time.
const VISIT_STREAMS: VarInt = VarInt::from_u32(10_000);
/// Nothing uses one-way streams.
const UNI_STREAMS: VarInt = VarInt::from_u32(0);

/// The transport settings of all attempts. `window` is the connection's receive window.
pub(crate) fn transport(
    congestion: Congestion,
    window: u64,
    timeouts: &QuicTimeouts,
) -> TransportConfig {
    let mut transport = quic::transport(congestion, timeouts, window);
    transport
        .max_concurrent_bidi_streams(VISIT_STREAMS)
        .max_concurrent_uni_streams(UNI_STREAMS)
        .keep_alive_interval(Some(timeouts.keep_alive));
    transport
}

/// The settings of one dial.
pub(super) fn config(
    tls: rustls::ClientConfig,
    transport: Arc<TransportConfig>,
) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport);
    Ok(config)
}

/// Connects to the relay `host` at `address`, within `limit`.
pub(super) async fn connect(
    address: SocketAddr,
    host: &str,
    config: ClientConfig,
    limit: Duration,
) -> Result<Connection, DialError> {
    let socket = |error| DialError::Socket(address, error);
    let udp = udp::towards(address).map_err(socket)?;
    let runtime = Arc::new(coalesce::Quinn);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, udp, runtime).map_err(socket)?;
    let connecting = endpoint
        .connect_with(config, address, host)
        .map_err(|error| DialError::Connect(address, error))?;
    match timeout(limit, connecting).await {
        Ok(Ok(connection)) => Ok(Connection::Quic {
            connection,
            endpoint,
        }),
        Ok(Err(error)) if is_refusal(&error) => Err(DialError::Busy(address)),
        Ok(Err(error)) => Err(DialError::Handshake(address, error)),
        Err(_) => Err(DialError::Silence(address)),
    }
}

/// Whether the relay has turned the attempt away before it looked at it (RFC 9000, 20.1).
fn is_refusal(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionClosed(close) => {
            close.error_code == TransportErrorCode::CONNECTION_REFUSED
        }
        _ => false,
    }
}
