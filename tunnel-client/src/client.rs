//! The agent as a whole: check the configuration, then run until told to end.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error_span};
use tunnel_common::budget::{Carrier, MemoryBudget};
use tunnel_common::clock::Clock;
use tunnel_common::escape::Escaped;
use tunnel_common::identity::{KeyFingerprint, Label};
use tunnel_common::quic::Congestion;
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::tls::{self, CertificateError};
use tunnel_common::wire::frame::{Instance, Refused};

use crate::announcements::Announcements;
use crate::certifying::Certifying;
use crate::config::{Config, RelayConfig, Transport};
use crate::endpoint::Endpoint;
use crate::honesty::Watch;
use crate::host::events::Host;
use crate::link::belief::TlsSettings;
use crate::link::dial::Dialler;
use crate::link::dial_error::TlsError;
use crate::link::keeper::Keeper;
use crate::link::known_relays::KnownRelays;
use crate::link::policy::Policy;
use crate::link::shared::Link;
use crate::link::{h2, quic};
use crate::links::Links;
use crate::standing::Standing;
use crate::status::Status;
use crate::visit::Venue;

/// Why an agent can not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody is named to be attached to.
    #[error("no relay is named")]
    NoRelay,
    /// The key makes no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The tunnel's TLS can not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

/// The relay refuses this agent, and trying again would not help. Of several relays all do, and this is
/// what the last one said.
#[derive(Debug, thiserror::Error)]
#[error("the relay refuses this agent: {}", Escaped(&.0.text))]
pub struct RefusedByRelay(pub Refused);

/// An agent that is ready to run.
#[derive(Debug)]
pub struct Client {
    links: Vec<Arc<Link>>,
    certifying: Certifying,
    key: KeyFingerprint,
    honesty: Watch,
}

/// What the links of one agent share, or are given alike.
struct Common {
    identity: CertifiedKey,
    known_relays: Option<KnownRelays>,
    clock: Clock,
    transport: Transport,
    last_port: Option<u16>,
    pool_size: u16,
    congestion: Congestion,
    budget: MemoryBudget,
    venue: Arc<Venue>,
    standing: Arc<Standing>,
    announcements: Announcements,
}

impl Common {
    /// The link of this number.
    fn link(&self, number: usize, relay: RelayConfig) -> Result<Arc<Link>, ClientError> {
        let RelayConfig {
            address,
            trust,
            proxy,
        } = relay;
        let tls = TlsSettings {
            identity: self.identity.clone(),
            trust,
            known_relays: self.known_relays.clone(),
            clock: self.clock.clone(),
        };
        let (timeouts, window) = (self.venue.timeouts, self.budget.first_window(Carrier::Quic));
        let quic = quic::OverUdp::new(self.congestion, window, timeouts.quic);
        let h2 = h2::OverTcp::new(self.congestion, self.budget.clone(), &timeouts);
        let transport = match proxy {
            Some(_) => Transport::OnlyH2,
            None => self.transport,
        };
        let policy = Policy::new(transport, address.port(), self.last_port, self.pool_size);
        let resolver = self.venue.resolver.clone();
        let dialler = Dialler::new(address, tls, (quic, h2), timeouts, resolver)?;
        Ok(Arc::new(Link {
            dialler: dialler.with_proxy(proxy),
            policy,
            venue: self.venue.clone(),
            budget: self.budget.clone(),
            instance: Instance::new(tls::random().map_err(|_| ClientError::Random)?),
            number,
            standing: self.standing.clone(),
            announcements: self.announcements.clone(),
        }))
    }
}

impl Client {
    /// Checks the configuration. Nothing is dialled before [`run`](Self::run).
    pub fn new(config: Config) -> Result<Self, ClientError> {
        if config.relays.is_empty() {
            return Err(ClientError::NoRelay);
        }
        let endpoint = Endpoint::new(config.endpoint, &config.clock)?;
        let second = config.second;
        let second = second.map(|second| Endpoint::new(second, &config.clock));
        let (key, identity) = (endpoint.id(), endpoint.identity()?);
        let venue = Arc::new(Venue {
            endpoints: [endpoint].into_iter().chain(second.transpose()?).collect(),
            pool: BufferPool::default(),
            timeouts: config.timeouts,
            splice_timeouts: Arc::new(config.timeouts.splice),
            resolver: config.resolver,
        });
        let standing = Arc::new(Standing::new(config.relays.len()));
        let announcements = Announcements::default();
        let has_own_key = config.certificates.are_for_own_key();
        let certifying = Certifying::new(
            config.certificates,
            venue.clone(),
            standing.clone(),
            announcements.clone(),
            config.clock.clone(),
        );
        // Only the first endpoint's certificates may be for another key than its own.
        let own = venue.endpoints.iter().skip(usize::from(!has_own_key));
        let own = own.filter(|endpoint| endpoint.ends_tls());
        let honesty = Watch {
            dial: config.dial,
            times: config.honesty,
            own: own.map(|endpoint| endpoint.name().clone()).collect(),
            standing: standing.clone(),
        };
        let common = Common {
            identity,
            known_relays: config.known_relays,
            clock: config.clock,
            transport: config.transport,
            last_port: config.last_port,
            pool_size: config.pool_size,
            congestion: config.congestion,
            budget: MemoryBudget::new(config.memory_budget),
            venue,
            standing,
            announcements,
        };
        let relays = config.relays.into_iter().enumerate();
        let links = relays.map(|(number, relay)| common.link(number, relay));
        Ok(Self {
            links: links.collect::<Result<_, _>>()?,
            certifying,
            key,
            honesty,
        })
    }

    /// The id that visitors see in the URL.
    pub fn id(&self) -> Label {
        self.key.label()
    }

    /// The fingerprint of the key that visitors are shown, to be pinned.
    pub fn key(&self) -> KeyFingerprint {
        self.key
    }

    /// How the agent stands, now and at each change. It ends when the agent does.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.honesty.standing.status()
    }

    /// Serves until `shutdown` fires, through all outages. Only refusals that stand end it before, of every
    /// relay. Then the relays are told to send nobody more, and visits have
    /// [`Timeouts::drain_grace`](crate::config::Timeouts::drain_grace) for the answers that they wait for.
    /// Dropping the future resets what is live.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RefusedByRelay> {
        let host = Host::new();
        tokio::select! {
            kept = keep_all(self.links, &host, shutdown) => kept.map_err(RefusedByRelay),
            never = host.watch() => match never {},
            never = self.certifying.keep() => match never {},
            never = self.honesty.keep() => match never {},
        }
    }
}

/// Keeps all links. Where there are several, what the log says of one names its relay.
async fn keep_all(
    links: Vec<Arc<Link>>,
    host: &Host,
    shutdown: CancellationToken,
) -> Result<(), Refused> {
    let relays: Vec<_> = links
        .iter()
        .map(|link| link.dialler.relay().clone())
        .collect();
    let (numbered, host, token) = (links, host.clone(), shutdown.clone());
    let keep = move |number: usize| {
        let link = numbered[number].clone();
        // What kept it before may have ended by a fault.
        link.is_cut_off();
        let span = match numbered.len() {
            1 => Span::none(),
            _ => error_span!("link", relay = %link.dialler.relay()),
        };
        let keeper = Keeper::new(link, host.clone(), token.clone());
        keeper.keep().instrument(span)
    };
    Links::new(relays, keep, shutdown).run().await
}
