//! A tunnel that serves: streams become visits, grants become the status.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, info, warn};
use tunnel_common::escape::Escaped;
use tunnel_common::tls::CertificateError;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::Granted;

use super::connection::{Closed, Connection};
use super::control::{Control, ControlFailure, News};
use super::dial::Ready;
use super::draining::Draining;
use super::farewell::Farewell;
use super::grant::{self, OwnUrl};
use super::policy::Way;
use super::pulse::Pulse;
use super::shared::Link;
use crate::endpoint::{Endpoint, ProveError};
use crate::served::{Orderer, Served};
use crate::status::Published;
use crate::visit::{self, Carriage, Venue};

/// Why a tunnel does not serve, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// What the relay said, or failed to say.
    #[error(transparent)]
    Control(#[from] ControlFailure),
    /// A certificate for the granted names could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The keys of our endpoints could not be proved.
    #[error(transparent)]
    Unproved(#[from] ProveError),
    /// The connection has nothing by which keys could be proved.
    #[error("the connection has no exporter")]
    Exporter,
}

/// By what a pool guides its tunnels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reins<'a> {
    /// Fires when the tunnel should leave.
    pub(super) shutdown: &'a CancellationToken,
    /// Fires when others serve in its place, or it should leave.
    pub(super) retired: &'a CancellationToken,
    /// Where it says that the relay is about to stop.
    pub(super) draining: &'a Draining,
}

/// A tunnel whose relay has granted what we publish: visitors come. Dropping it cuts it off.
#[derive(Debug)]
pub(crate) struct Tunnel {
    way: Way,
    connection: Connection,
    control: Control,
}

impl Tunnel {
    /// Asks a relay that is ready for our endpoints. From some time on before this is done, visitors
    /// come to this tunnel and no longer to an older one.
    pub(crate) async fn ask(ready: Ready, link: &Link) -> Result<Self, TunnelError> {
        let Ready {
            way,
            connection,
            slot,
            mut control,
        } = ready;
        let exporter = connection.exporter().ok_or(TunnelError::Exporter)?;
        let asked = control.ask(link.wishes(&exporter)?, &link.venue.timeouts);
        let granted = asked.await;
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => return Err(root_cause(&connection, link, error.into()).await),
        };
        let published = published(link, &granted, &control)?;
        let (relay, relay_id) = (connection.target(), Escaped(control.relay_id()));
        let transport = connection.transport();
        match slot {
            0 => info!(%relay, %relay_id, transport, "tunnel serves"),
            _ => debug!(%relay, transport, slot, "one more tunnel serves"),
        }
        link.is_serving(published);
        Ok(Self {
            way,
            connection,
            control,
        })
    }

    /// How the relay was reached.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// Tells whether anything still comes from the relay.
    pub(super) fn pulse(&self) -> Pulse {
        self.connection.pulse()
    }

    /// Serves until the tunnel ends (an error), or its pool wants it to leave and its visits are over or
    /// have had their time; closes the connection.
    ///
    /// What is left of its visits ends with it. Dropping the future resets them and closes the
    /// connection.
    pub(super) async fn serve(self, link: &Link, reins: Reins<'_>) -> Result<(), TunnelError> {
        let Self {
            connection,
            control,
            ..
        } = self;
        let served = serve(&connection, control, link, reins).await;
        let goodbye = link.venue.timeouts.goodbye;
        connection.close(Code::Draining, goodbye).await;
        served
    }
}

async fn serve(
    connection: &Connection,
    mut control: Control,
    link: &Link,
    reins: Reins<'_>,
) -> Result<(), TunnelError> {
    let account = link.budget.tunnel(connection.carrier());
    let farewell = Farewell::default();
    let carriage = Carriage {
        budget: account.clone(),
        parting: farewell.parting.clone(),
    };
    let mut windows = account.lower_windows();
    let rewindow = async {
        loop {
            connection.lower_window(windows.next().await);
        }
    };
    let departing = async {
        reins.shutdown.cancelled().await;
        let timeouts = &link.venue.timeouts;
        farewell.part(timeouts, connection.closed()).await;
    };
    let served = tokio::select! {
        Err(error) = converse(&mut control, link, reins, &farewell) => {
            Err(root_cause(connection, link, error).await)
        }
        error = accept_visits(connection, &link.venue, &carriage, &farewell.visits) => {
            Err(ControlFailure::Connection(error).into())
        }
        () = rewindow => Ok(()),
        () = departing => Ok(()),
    };
    // Whoever leaves is let go when his visits are over.
    served.or_else(|error| match reins.shutdown.is_cancelled() {
        true => Ok(()),
        false => Err(error),
    })
}

/// Acts on what the relay says and tells it when we leave, until the tunnel ends or the relay takes all
/// away.
async fn converse(
    control: &mut Control,
    link: &Link,
    reins: Reins<'_>,
    farewell: &Farewell,
) -> Result<Infallible, TunnelError> {
    let mut says_goodbye = pin!(reins.shutdown.cancelled());
    let mut is_leaving = false;
    let mut teller = link.announcements.teller();
    loop {
        let news = tokio::select! {
            news = control.next() => news?,
            change = teller.next() => {
                control.announce(&change).await?;
                continue;
            }
            () = &mut says_goodbye, if !is_leaving => {
                is_leaving = true;
                control.leave().await?;
                continue;
            }
        };
        match news {
            // What others serve by now is not for this tunnel to say.
            News::Granted(_) if reins.retired.is_cancelled() => {}
            News::Granted(granted) => {
                link.is_serving(published(link, &granted, control)?);
            }
            News::Draining(spread) => {
                info!("the relay is about to stop");
                reins.draining.is_told(spread, fastrand::f64());
            }
            News::Leaving => {
                info!("the relay stops");
                farewell.parting.cancel();
            }
            News::Heard => farewell.heard.cancel(),
            News::HeardOf(rev) => teller.heard(rev),
        }
    }
}

/// Where the connection itself goes, that is why everything on it failed. It may be heard a moment
/// after the control stream broke.
async fn root_cause(connection: &Connection, link: &Link, error: TunnelError) -> TunnelError {
    let patience = match error {
        TunnelError::Control(ControlFailure::Control(_)) => link.venue.timeouts.goodbye,
        _ => Duration::ZERO,
    };
    match timeout(patience, connection.closed()).await {
        Ok(reason) => ControlFailure::Connection(reason).into(),
        Err(_) => error,
    }
}

/// What the relay granted, with certificates for it. The first endpoint must be granted; another one
/// may be missing.
fn published(
    link: &Link,
    granted: &[Granted],
    control: &Control,
) -> Result<Vec<Published>, TunnelError> {
    let mut published = vec![];
    for endpoint in &link.venue.endpoints {
        let name = endpoint.name();
        match grant::urls(name, endpoint.label(), granted) {
            Ok(urls) => {
                let orderer = match grant::leads(name, granted) {
                    _ if !control.is_validated() => Orderer::Nobody,
                    true => Orderer::Us,
                    false => Orderer::Replica,
                };
                let served = Served {
                    hosts: urls.iter().map(|own| own.host.clone()).collect(),
                    orderer,
                    relay: control.relay_id().to_owned(),
                };
                endpoint.serve_at(link.number, served)?;
                published.push(publish(endpoint, urls));
            }
            Err(ControlFailure::Refused(refused)) if !published.is_empty() => {
                let why = Escaped(&refused.text);
                warn!(%name, "the relay refuses an endpoint: {why}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(published)
}

fn publish(endpoint: &Endpoint, urls: Vec<OwnUrl>) -> Published {
    let urls: Vec<_> = urls.into_iter().map(|own| own.url).collect();
    Published {
        name: endpoint.name().clone(),
        key: endpoint.id(),
        shown: urls.first().cloned().into_iter().collect(),
        urls,
        certificates: BTreeMap::new(),
        impersonated: false,
    }
}

/// One task for each stream that the relay opens, until the connection ends. The tasks end when
/// this future does.
async fn accept_visits(
    connection: &Connection,
    venue: &Arc<Venue>,
    carriage: &Carriage,
    in_flight: &TaskTracker,
) -> Closed {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_visit() => match stream {
                Ok(stream) => {
                    let visit = visit::serve(stream, venue.clone(), carriage.clone());
                    visits.spawn(in_flight.track_future(visit.in_current_span()));
                }
                Err(closed) => return closed,
            },
            Some(ended) = visits.join_next() => if ended.is_err_and(|error| error.is_panic()) {
                warn!("a visit failed by a fault of ours; the others go on");
            },
        }
    }
}
