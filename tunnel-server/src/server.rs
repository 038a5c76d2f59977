//! The relay as a whole: bind, then run until told to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, VarInt};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_common::budget::MemoryBudget;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::wire::alpn;
use tunnel_common::wire::code::Code;
use tunnel_common::{quic, tls};

use crate::agent::acceptor;
use crate::agent::identity::AnyProvenKey;
use crate::config::Config;
use crate::names::Names;
use crate::public::listener;
use crate::state::State;

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

/// Why a relay can not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The port for agents is not to be had.
    #[error("the API port (UDP {address}) can not be bound: {source}")]
    Api {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A port for visitors is not to be had.
    #[error("the public port (TCP {address}) can not be bound: {source}")]
    Public {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The relay's certificate or key can not be used.
    #[error("the relay's certificate can not be used: {0}")]
    Certificate(String),
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

/// The UDP socket for agents has failed while the relay ran.
#[derive(Debug, thiserror::Error)]
#[error("the socket of the API port has failed")]
pub struct ApiSocketLost;

/// A relay whose ports are bound. It serves nobody before [`run`](Self::run).
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    listeners: Vec<TcpListener>,
    addresses: Addresses,
    max_visits: usize,
    state: Arc<State>,
}

/// Where a relay listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For agents, UDP.
    pub api: SocketAddr,
    /// For visitors, TCP; the one whose port URLs name comes first.
    pub public: Vec<SocketAddr>,
}

impl Server {
    /// Binds all ports. Must be called inside a tokio runtime. Dropping the result frees them.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let fingerprint = certificate_fingerprint(config)?;
        let budget = MemoryBudget::new(config.memory_budget);
        let window = budget.first_window();
        let public = PublicPorts::bind(config)?;
        let (endpoint, api) = bind_api(config, window)?;
        let port = config.advertise_port.unwrap_or(public.addresses[0].port());
        let names = Names::new(config.suffixes.clone(), port);
        let state = State::new(config, names, public.alpn_port, fingerprint, budget);
        Ok(Self {
            endpoint,
            listeners: public.listeners,
            addresses: Addresses {
                api,
                public: public.addresses,
            },
            max_visits: config.max_visits,
            state: Arc::new(state.map_err(|_| BindError::Random)?),
        })
    }

    /// Where it listens: the real ports.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The fingerprint of the relay's key, by which agents can trust it.
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.state.fingerprint
    }

    /// Serves until `shutdown` fires, then takes nobody new, ends what is live and returns. An error
    /// means that agents can not be served any more.
    ///
    /// Dropping the future instead leaves tasks running until the runtime ends.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ApiSocketLost> {
        let Self {
            endpoint,
            listeners,
            max_visits,
            state,
            ..
        } = self;
        let permits = Arc::new(Semaphore::new(max_visits));
        for listener in listeners {
            let accepting = listener::accept_visitors(listener, permits.clone(), state.clone());
            state.tasks.spawn(accepting);
        }
        state.tasks.spawn(keep_up_admission(state.clone()));
        let agents = acceptor::accept_agents(endpoint.clone(), state.clone());
        let agents = state.tasks.spawn(agents);

        let outcome = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            _ = agents => Err(ApiSocketLost),
        };
        info!(
            visits = state.visits.len(),
            agents = state.registry.agents(),
            "the relay ends"
        );
        state.shutdown.cancel();
        state.visits.end_all(Code::Draining);
        state.tasks.close();
        let goodbye = state.timeouts.goodbye;
        if timeout(goodbye, state.tasks.wait()).await.is_err() {
            warn!(tasks = state.tasks.len(), "some did not end in time");
        }
        endpoint.close(Code::Draining.into(), Code::Draining.to_string().as_bytes());
        // What is not acknowledged by then will time out at the other end.
        let _ = timeout(goodbye, endpoint.wait_idle()).await;
        outcome
    }
}

async fn keep_up_admission(state: Arc<State>) {
    let _ = state
        .shutdown
        .run_until_cancelled(state.admission.upkeep())
        .await;
}

fn certificate_fingerprint(config: &Config) -> Result<KeyFingerprint, BindError> {
    let bad = |why: String| BindError::Certificate(why);
    let end_entity = config
        .identity
        .cert
        .first()
        .ok_or_else(|| bad("it is empty".to_owned()))?;
    KeyFingerprint::of_certificate(end_entity).map_err(|error| bad(error.to_string()))
}

/// The bound ports for visitors.
struct PublicPorts {
    listeners: Vec<TcpListener>,
    /// At least one: the port that URLs name.
    addresses: Vec<SocketAddr>,
    /// The one on which certificate authorities validate, if it is among them.
    alpn_port: Option<u16>,
}

impl PublicPorts {
    /// Binds the public port and, where it may be had, the one for certificate authorities.
    fn bind(config: &Config) -> Result<Self, BindError> {
        let (listener, address) = bind_public(config, config.pub_port)?;
        let mut ports = Self {
            listeners: vec![listener],
            addresses: vec![address],
            alpn_port: None,
        };
        match config.alpn_port {
            Some(port) if port == address.port() => ports.alpn_port = Some(port),
            Some(port) => match bind_public(config, port) {
                Ok((listener, address)) => {
                    ports.listeners.push(listener);
                    ports.addresses.push(address);
                    ports.alpn_port = Some(address.port());
                }
                Err(error) => warn!("{error}; the relay runs without it"),
            },
            None => {}
        }
        Ok(ports)
    }
}

fn bind_public(config: &Config, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let address = SocketAddr::new(config.bind_addr, port);
    let bound = listener::bind(address)
        .and_then(TcpListener::from_std)
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
    bound.map_err(|source| BindError::Public { address, source })
}

/// `window` is the receive window of each connection.
fn bind_api(config: &Config, window: u64) -> Result<(Endpoint, SocketAddr), BindError> {
    let address = SocketAddr::new(config.bind_addr, config.api_port);
    let server = quic_config(config, window)?;
    let bound = quic::bind_udp(address).and_then(|socket| {
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?;
        let address = endpoint.local_addr()?;
        Ok((endpoint, address))
    });
    bound.map_err(|source| BindError::Api { address, source })
}

/// QUIC towards agents: TLS 1.3 with both keys proved, and never resumed, because a resumed session
/// brings back the peer's certificate without a new signature.
fn quic_config(config: &Config, window: u64) -> Result<quinn::ServerConfig, BindError> {
    let bad = |error: &dyn std::fmt::Display| BindError::Certificate(error.to_string());
    let provider = tls::provider();
    let verifier = Arc::new(AnyProvenKey(provider.clone()));
    let identity = SingleCertAndKey::from(config.identity.clone());
    let mut tls =
        rustls::ServerConfig::builder_with_details(provider, Arc::new(config.clock.clone()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| bad(&error))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(identity));
    tls.alpn_protocols = vec![alpn::QUIC.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| bad(&error))?;

    let mut transport = quic::transport(config.congestion, &config.timeouts.quic, window);
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
