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
use tunnel_common::wire::frame::{Hello, Instance, Refused};

use super::backoff::Backoff;
use super::control::ControlFailure;
use super::dial::{DialError, Dialler};
use super::tunnel::{self, Serving, TunnelError};
use crate::status::Status;
use crate::visit::Venue;

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
    Tunnel(#[from] TunnelError),
}

impl Lost {
    /// What the relay said, if it was the relay that refused.
    fn refusal(&self) -> Option<&Refused> {
        match self {
            Self::Tunnel(TunnelError::Control(ControlFailure::Refused(refused))) => Some(refused),
            _ => None,
        }
    }
}

impl Keeper {
    /// Serves until `shutdown` fires. An outage never ends it; a refusal that stands does.
    pub(crate) async fn keep(self, shutdown: &CancellationToken) -> Result<(), Refused> {
        let mut backoff = Backoff::new(Instant::now());
        let mut epoch = 0;
        loop {
            let Some(ended) = self.attempt(epoch, shutdown).await else {
                return Ok(());
            };
            let was_serving = self.status.send_replace(Status::Connecting) != Status::Connecting;
            if was_serving {
                backoff.served(Instant::now());
            }
            let wait = match ended.refusal() {
                Some(Refused {
                    retry_after: None, ..
                }) => return Err(refused(ended)),
                Some(Refused {
                    retry_after: Some(after),
                    ..
                }) => Duration::from_millis(*after),
                None => backoff.next(Instant::now(), fastrand::f64()),
            };
            warn!(relay = %self.dialler.relay(), again_in = ?wait, "{ended}");
            if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
                return Ok(());
            }
            epoch += 1;
        }
    }

    /// One dial and, if it succeeds, one tunnel's life. `None` when `shutdown` fired.
    async fn attempt(&self, epoch: u64, shutdown: &CancellationToken) -> Option<Lost> {
        info!(relay = %self.dialler.relay(), "connecting");
        let connection = match shutdown.run_until_cancelled(self.dialler.dial()).await? {
            Ok(connection) => connection,
            Err(error) => return Some(error.into()),
        };
        let (venue, budget, status) = (&self.venue, &self.budget, &self.status);
        let serving = Serving {
            venue,
            budget,
            status,
        };
        let served = tunnel::serve(connection, self.hello(epoch), serving, shutdown).await;
        served.err().map(Lost::from)
    }

    fn hello(&self, epoch: u64) -> Hello {
        Hello {
            instance: self.instance,
            epoch,
            slot: 0,
            slots: 1,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: vec![],
            rev: 1,
            wanted: vec![self.venue.endpoint.wanted()],
        }
    }
}

/// The refusal inside `ended`, which has one.
fn refused(ended: Lost) -> Refused {
    match ended {
        Lost::Tunnel(TunnelError::Control(ControlFailure::Refused(refused))) => refused,
        other => Refused::for_good(tunnel_common::wire::code::Code::Refused, other.to_string()),
    }
}
