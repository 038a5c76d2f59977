//! The agent as a whole: check the configuration, then run until told to end.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel_common::budget::{Carrier, MemoryBudget};
use tunnel_common::escape::Escaped;
use tunnel_common::identity::{KeyFingerprint, Label};
use tunnel_common::splice::buffer::BufferPool;
use tunnel_common::tls::{self, CertificateError};
use tunnel_common::wire::frame::{Instance, Refused};

use crate::config::{Config, Transport};
use crate::endpoint::Endpoint;
use crate::link::belief::TlsSettings;
use crate::link::dial::Dialler;
use crate::link::dial_error::TlsError;
use crate::link::keeper::Keeper;
use crate::link::policy::Policy;
use crate::link::shared::Link;
use crate::link::{h2, quic};
use crate::status::Status;
use crate::visit::Venue;

/// Why an agent can not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
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

/// The relay refuses this agent, and trying again would not help.
#[derive(Debug, thiserror::Error)]
#[error("the relay refuses this agent: {}", Escaped(&.0.text))]
pub struct RefusedByRelay(pub Refused);

/// An agent that is ready to run.
#[derive(Debug)]
pub struct Client {
    link: Arc<Link>,
    key: KeyFingerprint,
    status: watch::Receiver<Status>,
}

impl Client {
    /// Checks the configuration. Nothing is dialled before [`run`](Self::run).
    pub fn new(config: Config) -> Result<Self, ClientError> {
        let endpoint = Endpoint::new(config.endpoint, config.clock.clone())?;
        let second = config.second;
        let second = second.map(|second| Endpoint::new(second, config.clock.clone()));
        let key = endpoint.id();
        let budget = MemoryBudget::new(config.memory_budget);
        let tls = TlsSettings {
            identity: endpoint.identity()?,
            trust: config.trust,
            known_relays: config.known_relays,
            clock: config.clock,
        };
        let window = budget.first_window(Carrier::Quic);
        let (timeouts, resolver) = (config.timeouts, config.resolver);
        let quic = quic::transport(config.congestion, window, &timeouts.quic);
        let h2 = h2::OverTcp::new(config.congestion, budget.clone(), &timeouts);
        let (port, last_port) = (config.relay.port(), config.last_port);
        let transport = match config.proxy {
            Some(_) => Transport::OnlyH2,
            None => config.transport,
        };
        let policy = Policy::new(transport, port, last_port, config.pool_size);
        let dialler = Dialler::new(config.relay, tls, (quic, h2), timeouts, resolver.clone())?
            .with_proxy(config.proxy);
        let venue = Arc::new(Venue {
            endpoints: [endpoint].into_iter().chain(second.transpose()?).collect(),
            pool: BufferPool::default(),
            timeouts,
            resolver,
        });
        let (sender, status) = watch::channel(Status::default());
        let link = Arc::new(Link {
            dialler,
            policy,
            venue,
            budget,
            instance: Instance::new(tls::random().map_err(|_| ClientError::Random)?),
            status: sender,
        });
        Ok(Self { link, key, status })
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
        self.status.clone()
    }

    /// Serves until `shutdown` fires, through all outages. Only a relay's refusal that stands ends
    /// it before. Dropping the future resets what is live.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RefusedByRelay> {
        let keeper = Keeper::new(self.link, shutdown);
        keeper.keep().await.map_err(RefusedByRelay)
    }
}
