//! What visitors' side and agents' side share.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::GetRandomFailed;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::budget::MemoryBudget;
use tunnel_common::cert_store::CertStore;
use tunnel_common::quic::Congestion;
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::splice::options;
use tunnel_common::tls;

use crate::admission::Admission;
use crate::agent::registry::Registry;
use crate::agent::turns::Turns;
use crate::config::{Config, Timeouts};
use crate::drain::Drain;
use crate::log_limit::LogLimit;
use crate::names::Names;
use crate::proxies::TrustedProxy;
use crate::public::challenge::OwnChallenges;
use crate::visits::Visits;

/// Handshakes over TCP at one time.
const MAX_HANDSHAKES: usize = 512;

/// One relay's state, shared by all its tasks.
#[derive(Debug)]
pub(crate) struct State {
    /// Which names are ours.
    pub(crate) names: Names,
    /// The port on which certificate authorities validate, if it is bound.
    pub(crate) alpn_port: Option<u16>,
    /// Who is believed when he says who a visitor is.
    pub(crate) trusted_proxies: Vec<TrustedProxy>,
    /// Who the relay is: what agents are shown.
    pub(crate) identity: CertStore,
    /// How that stands with whoever vouches for it.
    pub(crate) certificate: watch::Sender<CertificateState>,
    /// TLS for agents that come over TCP.
    pub(crate) api_tls: Arc<ServerConfig>,
    /// How many agents may be shaking hands over TCP. Apart from QUIC's: one who holds them all up
    /// holds up nobody else.
    pub(crate) handshakes: Arc<Semaphore>,
    /// When the next handshake may begin, over whichever transport.
    pub(crate) turns: Turns,
    /// Who may register.
    pub(crate) admission: Arc<dyn Admission>,
    /// How often the log tells who may not.
    pub(crate) turned_away: LogLimit,
    /// Which agents are connected.
    pub(crate) registry: Registry,
    /// What certificate authorities see at the relay's own names.
    pub(crate) challenges: OwnChallenges,
    /// Which visits are live.
    pub(crate) visits: Arc<Visits>,
    /// The buffers of all splices.
    pub(crate) pool: BufferPool,
    /// What slow visitors may pin.
    pub(crate) budget: MemoryBudget,
    /// Congestion control towards agents.
    pub(crate) congestion: Congestion,
    /// How long to wait for what.
    pub(crate) timeouts: Timeouts,
    /// Those of all splices.
    pub(crate) splice_timeouts: Arc<options::Timeouts>,
    /// Every task of the relay.
    pub(crate) tasks: TaskTracker,
    /// How far the relay is on its way to the end.
    pub(crate) drain: Drain,
    /// Fires when the relay is to end at once.
    pub(crate) shutdown: CancellationToken,
}

impl State {
    /// The state of a relay that serves `names`.
    pub(crate) fn new(
        config: &Config,
        names: Names,
        alpn_port: Option<u16>,
        budget: MemoryBudget,
        api_tls: Arc<ServerConfig>,
    ) -> Result<Self, GetRandomFailed> {
        let shutdown = CancellationToken::new();
        let certificate = match config.certificate_files {
            Some(_) => CertificateState::Brought,
            None => CertificateState::SelfSigned,
        };
        Ok(Self {
            names,
            alpn_port,
            trusted_proxies: config.trusted_proxies.clone(),
            identity: config.identity.clone(),
            certificate: watch::Sender::new(certificate),
            api_tls,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            turns: Turns::new(config),
            admission: config.admission.clone(),
            turned_away: LogLimit::default(),
            registry: Registry::default(),
            challenges: OwnChallenges::default(),
            visits: Arc::new(Visits::new(tls::random()?)),
            pool: BufferPool::default(),
            budget,
            congestion: config.congestion,
            timeouts: config.timeouts,
            splice_timeouts: Arc::new(config.timeouts.splice),
            tasks: TaskTracker::new(),
            drain: Drain::new(&shutdown),
            shutdown,
        })
    }
}
