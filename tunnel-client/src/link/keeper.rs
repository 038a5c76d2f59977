//! Keeps the link: dial, serve, back off, for ever.
//!
//! ```text
//!        ┌──────────── wait ◀─────────────┐
//!        ▼                                │
//!     dialling ── connected ──▶ serving ──┤ lost
//!        │ │                       │      │
//!        │ └── failed ─────────────┼──────┘
//!        └──── refused for good ───┴──▶ end
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_common::budget::MemoryBudget;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Hello, Instance, Refused};

use super::backoff::Backoff;
use super::connection::Connection;
use super::control::ControlFailure;
use super::dial::Dialler;
use super::dial_error::DialError;
use super::tunnel::{self, Serving, TunnelError};
use crate::endpoint::{Endpoint, ProveError};
use crate::status::Status;
use crate::visit::Venue;

/// A relay that asks us to come back at once is given this much time all the same.
const MIN_REFUSED_WAIT: Duration = Duration::from_secs(1);
/// The wait after another process of the same key has taken our place: processes that fight for
/// one do so less than once a minute.
const REPLACED_WAIT: Duration = Duration::from_secs(60);
/// A tunnel that served for less is no sign that all is well: the waits go on growing.
const SERVED_LONG_ENOUGH: Duration = Duration::from_secs(10);

/// One agent's attachment to one relay.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// How to reach the relay.
    pub(crate) dialler: Dialler,
    /// What all visits share.
    pub(crate) venue: Arc<Venue>,
    /// What local services that do not read may pin.
    pub(crate) budget: MemoryBudget,
    /// This process.
    pub(crate) instance: Instance,
    /// Where the agent's state is told.
    pub(crate) status: watch::Sender<Status>,
}

/// Why an attempt or a tunnel ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Unproved(#[from] Unproved),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// Why the keys of our endpoints could not be proved.
#[derive(Debug, thiserror::Error)]
enum Unproved {
    #[error("the connection has no exporter")]
    Exporter,
    #[error("there is no endpoint")]
    NoEndpoint,
    #[error(transparent)]
    Key(#[from] ProveError),
}

impl Lost {
    /// What the relay said, if it was the relay that refused.
    fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Tunnel(TunnelError::Control(ControlFailure::Refused(refused))) => Some(refused),
            _ => None,
        }
    }

    /// Whether another tunnel of this agent took the place of ours.
    fn is_replaced(&self) -> bool {
        match self {
            Self::Tunnel(TunnelError::Control(ControlFailure::Connection(closed))) => {
                closed.code == Some(Code::Replaced)
            }
            _ => false,
        }
    }

    /// How long to wait before the next attempt.
    fn wait(&self, backoff: &mut Backoff) -> Duration {
        let share = fastrand::f64();
        let after = self.refusal().and_then(|refused| refused.retry_after);
        match after {
            Some(milliseconds) => {
                let after = Duration::from_millis(milliseconds).max(MIN_REFUSED_WAIT);
                after + after.mul_f64(share / 4.0)
            }
            None if self.is_replaced() => REPLACED_WAIT + REPLACED_WAIT.mul_f64(share / 2.0),
            None => backoff.next(Instant::now(), share),
        }
    }
}

impl Keeper {
    /// Serves until `shutdown` fires. An outage never ends it; a refusal that stands does.
    pub(crate) async fn keep(self, shutdown: &CancellationToken) -> Result<(), Refused> {
        let mut backoff = Backoff::new(Instant::now());
        let mut epoch = 0;
        loop {
            let begun = Instant::now();
            let Some(ended) = self.attempt(epoch, shutdown).await else {
                return Ok(());
            };
            let served = self.status.send_replace(Status::Connecting) != Status::Connecting;
            if served && begun.elapsed() >= SERVED_LONG_ENOUGH {
                backoff.served(Instant::now());
            }
            if let Some(refused) = ended
                .refusal()
                .filter(|refused| refused.retry_after.is_none())
            {
                return Err(refused.clone());
            }
            let wait = ended.wait(&mut backoff);
            // The reason comes last: it may end with a command to be pasted.
            warn!(
                "trying {} again in {wait:.1?}: {ended}",
                self.dialler.relay()
            );
            if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
            epoch += 1;
        }
    }

    /// One dial and, if it succeeds, one tunnel's life. `None` when `shutdown` fired.
    async fn attempt(&self, epoch: u64, shutdown: &CancellationToken) -> Option<Lost> {
        info!(relay = %self.dialler.relay(), "connecting");
        let connection = match shutdown
            .run_until_cancelled(Box::pin(self.dialler.dial()))
            .await?
        {
            Ok(connection) => connection,
            Err(error) => return Some(error.into()),
        };
        let (venue, budget, status) = (&self.venue, &self.budget, &self.status);
        let serving = Serving {
            venue,
            budget,
            status,
        };
        let hello = match self.hello(epoch, &connection) {
            Ok(hello) => hello,
            Err(error) => return Some(error.into()),
        };
        let served = tunnel::serve(&connection, hello, serving, shutdown).await;
        connection
            .close(Code::Draining, venue.timeouts.goodbye)
            .await;
        served.err().map(Lost::from)
    }

    fn hello(&self, epoch: u64, connection: &Connection) -> Result<Hello, Unproved> {
        let exporter = connection.exporter().ok_or(Unproved::Exporter)?;
        let endpoints = &self.venue.endpoints;
        let proven = endpoints.first().map(Endpoint::name);
        let proven = proven.ok_or(Unproved::NoEndpoint)?;
        let wanted = endpoints.iter();
        let wanted = wanted.map(|endpoint| endpoint.wanted(proven, &exporter));
        Ok(Hello {
            instance: self.instance,
            epoch,
            slot: 0,
            slots: 1,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: vec![],
            rev: 1,
            wanted: wanted.collect::<Result<_, _>>()?,
        })
    }
}
