//! The way to the relay over UDP.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, EndpointConfig, TransportConfig, TransportErrorCode, VarInt};
use rustls::ClientConfig;
use tokio::time::timeout;
use tunnel_common::quic::{self, Congestion, QuicTimeouts};

use super::connection::Connection;
use super::dial_error::{DialError, TlsError};
use super::movable::Movable;

/// Visits that the relay may have open at one time.
const VISIT_STREAMS: VarInt = VarInt::from_u32(10_000);
/// Nothing uses one-way streams.
const UNI_STREAMS: VarInt = VarInt::from_u32(0);

/// The settings of all attempts over UDP.
#[derive(Debug)]
pub(crate) struct OverUdp {
    congestion: Congestion,
    /// The receive window of a connection.
    window: u64,
    timeouts: QuicTimeouts,
}

impl OverUdp {
    /// `window` is the receive window of a connection.
    pub(crate) fn new(congestion: Congestion, window: u64, timeouts: QuicTimeouts) -> Self {
        Self {
            congestion,
            window,
            timeouts,
        }
    }

    fn transport(&self, largest_packet: u16) -> TransportConfig {
        let Self {
            congestion,
            window,
            timeouts,
        } = self;
        let mut transport = quic::transport(*congestion, timeouts, *window, largest_packet);
        transport
            .max_concurrent_bidi_streams(VISIT_STREAMS)
            .max_concurrent_uni_streams(UNI_STREAMS)
            .keep_alive_interval(Some(timeouts.keep_alive));
        transport
    }
}

/// Connects to the relay `host` at `address`, with packets as large as the route there takes them.
pub(super) async fn connect(
    address: SocketAddr,
    host: &str,
    tls: ClientConfig,
    over: &OverUdp,
) -> Result<Connection, DialError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(TlsError::from)?;
    let largest_packet = quic::largest_packet(address);
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(over.transport(largest_packet)));

    let socket = |error| DialError::Socket(address, error);
    let mut receiving = EndpointConfig::default();
    quic::receive_packets(&mut receiving, largest_packet);
    let endpoint = Movable::new(receiving, address).map_err(socket)?;
    let connecting = endpoint
        .endpoint()
        .connect_with(config, address, host)
        .map_err(|error| DialError::Connect(address, error))?;
    match timeout(over.timeouts.handshake, connecting).await {
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
