//! The API port: UDP for QUIC and, under the same number, TCP for HTTP/2.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, VarInt};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use tokio::net::TcpListener;
use tunnel_common::coalesce;
use tunnel_common::wire::alpn;
use tunnel_common::{quic, tls};

use super::identity::AnyProvenKey;
use crate::config::Config;
use crate::public::listener;
use crate::reset_keys::ResetKeys;

/// Connection attempts that wait to be accepted, and what they may make us keep: far below quinn's
/// defaults, which a small relay can not afford.
const MAX_INCOMING: usize = 4096;
const INCOMING_BYTES_EACH: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 32 * 1024 * 1024;
/// How long a Retry token is good for: a round trip, even a slow one.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(15);
/// Streams that an agent may open: its control stream, and nothing else.
const AGENT_BIDI_STREAMS: VarInt = VarInt::from_u32(1);
const AGENT_UNI_STREAMS: VarInt = VarInt::from_u32(0);

/// How often a free port is asked for that is free for both.
const FREE_PORT_ATTEMPTS: usize = 32;

/// The bound API port.
#[derive(Debug)]
pub(crate) struct ApiPort {
    /// For QUIC.
    pub(crate) endpoint: Endpoint,
    /// For HTTP/2, unless visitors come to the same number: then agents are known there by what they
    /// offer.
    pub(crate) listener: Option<TcpListener>,
    /// Where both are.
    pub(crate) address: SocketAddr,
    /// TLS for HTTP/2.
    pub(crate) tls: Arc<ServerConfig>,
}

/// Why the API port can not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A socket.
    #[error("{transport} {address}: {source}")]
    Socket {
        transport: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    /// The relay's certificate or key.
    #[error("{0}")]
    Certificate(String),
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

impl ApiPort {
    /// Binds it. `window` is the receive window of each QUIC connection; visitors come to the TCP ports
    /// `public`.
    pub(crate) fn bind(
        config: &Config,
        public: &[SocketAddr],
        window: u64,
    ) -> Result<Self, ApiError> {
        let server = quic_config(config, window)?;
        let tls = tls_config(config, alpn::H2).map_err(unusable)?;
        let reset_keys = match &config.reset_keys {
            Some(keys) => keys.clone(),
            None => ResetKeys::random().map_err(|_| ApiError::Random)?,
        };
        let wanted = SocketAddr::new(config.bind_addr, config.api_port);
        let is_shared = public.iter().any(|public| public.port() == config.api_port);
        let (udp, tcp, address) = if is_shared {
            let udp = quic::bind_udp(wanted).map_err(failed("UDP", wanted))?;
            (udp, None, wanted)
        } else {
            let (udp, tcp, address) = both(wanted)?;
            (udp, Some(tcp), address)
        };
        let listener = tcp.map(TcpListener::from_std).transpose();
        let runtime = Arc::new(coalesce::Quinn);
        let mut receiving = reset_keys.endpoint_config();
        quic::receive_packets(&mut receiving, quic::MAX_PACKET);
        let endpoint = Endpoint::new(receiving, Some(server), udp, runtime);
        Ok(Self {
            endpoint: endpoint.map_err(failed("UDP", address))?,
            listener: listener.map_err(failed("TCP", address))?,
            address,
            tls: Arc::new(tls),
        })
    }
}

fn unusable(error: impl std::fmt::Display) -> ApiError {
    ApiError::Certificate(error.to_string())
}

fn failed(transport: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> ApiError {
    move |source| ApiError::Socket {
        transport,
        address,
        source,
    }
}

type Sockets = (UdpSocket, StdListener, SocketAddr);

/// Both sockets under one number. A port that the system chose for one may be taken for the other:
/// then it is asked again.
fn both(wanted: SocketAddr) -> Result<Sockets, ApiError> {
    let mut attempts = FREE_PORT_ATTEMPTS;
    loop {
        attempts -= 1;
        let udp = quic::bind_udp(wanted).map_err(failed("UDP", wanted))?;
        let address = udp.local_addr().map_err(failed("UDP", wanted))?;
        match listener::bind(address) {
            Ok(tcp) => return Ok((udp, tcp, address)),
            Err(_) if wanted.port() == 0 && attempts > 0 => {}
            Err(error) => return Err(failed("TCP", address)(error)),
        }
    }
}

fn quic_config(config: &Config, window: u64) -> Result<quinn::ServerConfig, ApiError> {
    let tls = tls_config(config, alpn::QUIC).map_err(unusable)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(unusable)?;

    let (timeouts, largest) = (&config.timeouts.quic, quic::MAX_PACKET);
    // An agent says how large its packets may be: as its route to us takes them.
    let mut transport = quic::transport(config.congestion, timeouts, window, largest);
    transport
        .max_concurrent_bidi_streams(AGENT_BIDI_STREAMS)
        .max_concurrent_uni_streams(AGENT_UNI_STREAMS);
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES_EACH)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME);
    Ok(server)
}

/// TLS 1.3 with both keys proved, and never resumed, because a resumed session brings back the peer's
/// certificate without a new signature.
fn tls_config(config: &Config, protocol: &[u8]) -> Result<ServerConfig, rustls::Error> {
    let provider = tls::provider();
    let verifier = Arc::new(AnyProvenKey(provider.clone()));
    let clock = Arc::new(config.clock.clone());
    let mut tls = ServerConfig::builder_with_details(provider, clock)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(config.identity.clone()));
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}
