//! The relay as a whole: bind, then run until told to end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tunnel_common::acme::state::CertificateState;
use tunnel_common::budget::{Carrier, MemoryBudget};
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::pem_pair::{self, PemPair};
use tunnel_common::wire::code::Code;

use crate::acme::AcmeConfig;
use crate::admin::health;
use crate::agent::bind::{ApiError, ApiPort};
use crate::agent::{acceptor, h2};
use crate::certification;
use crate::config::Config;
use crate::names::Names;
use crate::public::{listener, visit};
use crate::state::State;

/// Agents over TCP have permits of their own, one for so many visits: visitors who take all of theirs
/// keep no agent out.
const API_SHARE: usize = 16;
/// Agents over TCP, at the least.
const MIN_API_CONNECTIONS: usize = 64;

/// Why a relay can not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The port for agents is not to be had.
    #[error("the API port ({transport} {address}) can not be bound: {source}")]
    Api {
        /// UDP or TCP.
        transport: &'static str,
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
    /// The port for certificate authorities is not to be had, and the relay is to have a certificate of one.
    #[error(
        "the port for certificate authorities (TCP {address}) can not be bound: {source}. Without it nobody \
         certifies {host}: let the relay bind it, or give it with --alpn-port another one, to which port \
         {port} of {host} leads"
    )]
    Validation {
        /// Where.
        address: SocketAddr,
        /// The relay's name.
        host: Hostname,
        /// The port to which authorities come, as it is seen from outside.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The port for questions about the relay's health is not to be had.
    #[error("the admin port (TCP {address}) can not be bound: {source}")]
    Admin {
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

impl From<ApiError> for BindError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Certificate(why) => Self::Certificate(why),
            ApiError::Random => Self::Random,
            ApiError::Socket {
                transport,
                address,
                source,
            } => Self::Api {
                transport,
                address,
                source,
            },
        }
    }
}

/// The UDP socket for agents has failed while the relay ran.
#[derive(Debug, thiserror::Error)]
#[error("the socket of the API port has failed")]
pub struct ApiSocketLost;

/// A relay whose ports are bound. It serves nobody before [`run`](Self::run).
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    api: Option<TcpListener>,
    listeners: Vec<TcpListener>,
    admin: Option<TcpListener>,
    addresses: Addresses,
    fingerprint: KeyFingerprint,
    certificate_files: Option<PemPair>,
    acme: Option<AcmeConfig>,
    clock: Clock,
    max_visits: usize,
    drain_delay: Duration,
    drain_grace: Duration,
    state: Arc<State>,
}

/// Where a relay listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For agents, UDP and TCP.
    pub api: SocketAddr,
    /// For visitors, TCP; the one whose port URLs name comes first.
    pub public: Vec<SocketAddr>,
    /// For questions about the relay's health, TCP, if that is wanted.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Binds all ports. Must be called inside a tokio runtime. Dropping the result frees them.
    pub fn bind(config: &Config) -> Result<Self, BindError> {
        let fingerprint = config.identity.fingerprint();
        let unreadable = || BindError::Certificate("it can not be read".to_owned());
        let fingerprint = fingerprint.ok_or_else(unreadable)?;
        let budget = MemoryBudget::new(config.memory_budget);
        let window = budget.first_window(Carrier::Quic);
        let public = PublicPorts::bind(config)?;
        let api = ApiPort::bind(config, &public.addresses, window)?;
        let admin = config.admin_addr.map(bind_admin).transpose()?;
        let (admin, admin_address) = admin.unzip();
        let port = config.advertise_port.unwrap_or(public.addresses[0].port());
        let certified = config.acme.as_ref().map(|acme| acme.host.clone());
        let own = config.own_names.iter().cloned().chain(certified);
        let names = Names::new(config.suffixes.clone(), port).with_own(own.collect());
        let state = State::new(config, names, public.alpn_port, budget, api.tls);
        Ok(Self {
            endpoint: api.endpoint,
            api: api.listener,
            listeners: public.listeners,
            admin,
            addresses: Addresses {
                api: api.address,
                public: public.addresses,
                admin: admin_address,
            },
            fingerprint,
            certificate_files: config.certificate_files.clone(),
            acme: config.acme.clone(),
            clock: config.clock.clone(),
            max_visits: config.max_visits,
            drain_delay: config.drain_delay,
            drain_grace: config.drain_grace,
            state: Arc::new(state.map_err(|_| BindError::Random)?),
        })
    }

    /// Where it listens: the real ports.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The fingerprint of the relay's key, by which agents can trust it, as it was at the bind. If the
    /// relay is given another key while it runs, agents are told that one from then on.
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// How the relay stands with its certificate, now and at each change.
    pub fn certificate(&self) -> watch::Receiver<CertificateState> {
        self.state.certificate.subscribe()
    }

    /// Serves until `shutdown` fires, then drains: takes nobody new, lets visits get the answers that
    /// they wait for, ends what is left after [`Config::drain_grace`], and returns. An error means that
    /// agents can not be served any more.
    ///
    /// Dropping the future instead leaves tasks running until the runtime ends.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), ApiSocketLost> {
        self.keep_up_certificate();
        self.listen();
        let Self {
            endpoint, state, ..
        } = self;
        state.tasks.spawn(keep_up_admission(state.clone()));
        let agents = acceptor::accept_agents(endpoint.clone(), state.clone());
        let agents = state.tasks.spawn(agents);

        let ending = async {
            shutdown.cancelled().await;
            drain(&state, self.drain_delay, self.drain_grace).await;
        };
        let outcome = tokio::select! {
            () = ending => Ok(()),
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

    /// Accepts connections at all TCP ports.
    fn listen(&mut self) {
        let (state, end) = (&self.state, self.state.drain.closed());
        let permits = Arc::new(Semaphore::new(self.max_visits));
        for listener in self.listeners.drain(..) {
            let (permits, end) = (permits.clone(), end.clone());
            let accepting = listener::accept(listener, permits, state.clone(), end, visit::serve);
            state.tasks.spawn(accepting);
        }
        if let Some(api) = self.api.take() {
            let share = (self.max_visits / API_SHARE).max(MIN_API_CONNECTIONS);
            let permits = Arc::new(Semaphore::new(share));
            let serve = |tcp, address, state| h2::serve(Bytes::new(), tcp, address, state);
            let accepting = listener::accept(api, permits, state.clone(), end.clone(), serve);
            state.tasks.spawn(accepting);
        }
        if let Some(admin) = self.admin.take() {
            let permits = Arc::new(Semaphore::new(health::MAX_CONNECTIONS));
            // To the very end: balancers go on asking while the relay drains.
            let (state, end) = (state.clone(), state.shutdown.clone());
            let accepting = listener::accept(admin, permits, state, end, health::serve);
            self.state.tasks.spawn(accepting);
        }
    }

    /// Takes what the files of the certificate hold whenever they change, or orders it.
    fn keep_up_certificate(&mut self) {
        if let Some(acme) = self.acme.take() {
            let keeping = certification::keep(acme, self.state.clone());
            self.state.tasks.spawn(keeping);
        }
        let Some(files) = self.certificate_files.take() else {
            return;
        };
        let (state, clock) = (self.state.clone(), self.clock.clone());
        self.state.tasks.spawn(async move {
            let shown = state.identity.default_certificate();
            let show = |new| state.identity.set_default(new);
            let watch = files.watch(shown, clock, pem_pair::LOOK_EVERY, show);
            state.shutdown.run_until_cancelled(watch).await;
        });
    }
}

/// Takes the steps of [`drain`](crate::drain), up to the shutdown.
async fn drain(state: &State, delay: Duration, grace: Duration) {
    let (visits, agents) = (state.visits.len(), state.registry.agents());
    info!(visits, agents, ?delay, ?grace, "the relay drains");
    state.drain.begin();
    if !delay.is_zero() {
        sleep(delay).await;
    }
    state.drain.close();
    let were_there = state.visits.are_there();
    if timeout(grace, state.visits.gone()).await.is_err() {
        let visits = state.visits.len();
        warn!(visits, "the grace is over; visits that are left are cut");
    } else if were_there {
        // What the last of them sent to the agent may still be on its way.
        sleep(state.timeouts.splice.arrival).await;
    }
}

async fn keep_up_admission(state: Arc<State>) {
    let upkeep = state.admission.upkeep();
    if state.shutdown.run_until_cancelled(upkeep).await.is_some() {
        error!("changes of who may register are not seen any more; restart the relay");
    }
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
            Some(port) => match (bind_public(config, port), &config.acme) {
                (Ok((listener, address)), _) => {
                    ports.listeners.push(listener);
                    ports.addresses.push(address);
                    ports.alpn_port = Some(address.port());
                }
                (Err(BindError::Public { address, source }), Some(acme)) => {
                    return Err(BindError::Validation {
                        address,
                        host: acme.host.clone(),
                        port: acme.ca.validation_port,
                        source,
                    });
                }
                (Err(error), _) => warn!("{error}; the relay runs without it"),
            },
            None => {}
        }
        Ok(ports)
    }
}

fn bind_public(config: &Config, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let address = SocketAddr::new(config.bind_addr, port);
    bind_tcp(address).map_err(|source| BindError::Public { address, source })
}

fn bind_admin(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = bind_tcp(address).map_err(|source| BindError::Admin { address, source })?;
    info!(address = %bound.1, "/healthz and /readyz tell how the relay is");
    Ok(bound)
}

fn bind_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::from_std(listener::bind(address)?)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests;
