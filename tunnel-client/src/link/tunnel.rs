//! A tunnel that serves: streams become visits, grants become the status.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, warn};
use tunnel_common::budget::TunnelBudget;
use tunnel_common::escape::Escaped;
use tunnel_common::tls::CertificateError;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::Granted;

use super::connection::{Closed, Connection};
use super::control::{Control, ControlFailure};
use super::dial::Ready;
use super::grant::{self, OwnUrl};
use super::policy::Way;
use super::pulse::Pulse;
use super::shared::Link;
use crate::endpoint::{Endpoint, ProveError};
use crate::status::Published;
use crate::visit::{self, Venue};

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
            welcome,
        } = ready;
        let exporter = connection.exporter().ok_or(TunnelError::Exporter)?;
        let asked = control.ask(link.wishes(&exporter)?, &link.venue.timeouts);
        let granted = asked.await;
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => return Err(root_cause(&connection, link, error.into()).await),
        };
        let published = published(link, &granted)?;
        let (relay, relay_id) = (connection.target(), Escaped(&welcome.relay_id));
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

    /// Serves until the tunnel ends (an error) or `shutdown` fires, and closes the connection.
    ///
    /// Its visits end with it. Dropping the future resets them and closes the connection.
    pub(crate) async fn serve(
        self,
        link: &Link,
        shutdown: &CancellationToken,
    ) -> Result<(), TunnelError> {
        let Self {
            connection,
            control,
            ..
        } = self;
        let served = serve(&connection, control, link, shutdown).await;
        let goodbye = link.venue.timeouts.goodbye;
        connection.close(Code::Draining, goodbye).await;
        served
    }
}

async fn serve(
    connection: &Connection,
    mut control: Control,
    link: &Link,
    shutdown: &CancellationToken,
) -> Result<(), TunnelError> {
    let account = link.budget.tunnel(connection.carrier());
    let mut visits = pin!(accept_visits(connection, &link.venue, &account));
    let mut windows = account.lower_windows();
    let rewindow = async {
        loop {
            connection.lower_window(windows.next().await);
        }
    };
    tokio::select! {
        error = follow_grants(&mut control, link) => {
            return Err(root_cause(connection, link, error).await);
        }
        error = &mut visits => return Err(ControlFailure::Connection(error).into()),
        () = rewindow => {}
        () = shutdown.cancelled() => {}
    }
    // Visitors who were sent before the relay hears of it are still served meanwhile.
    tokio::select! {
        () = control.leave(&link.venue.timeouts) => {}
        _ = visits => {}
    }
    Ok(())
}

/// Takes each change of what is granted, until the tunnel ends or the relay takes all away.
async fn follow_grants(control: &mut Control, link: &Link) -> TunnelError {
    loop {
        let granted = match control.next_grant().await {
            Ok(granted) => granted,
            Err(error) => return error.into(),
        };
        match published(link, &granted) {
            Ok(published) => link.is_serving(published),
            Err(error) => return error,
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
fn published(link: &Link, granted: &[Granted]) -> Result<Vec<Published>, TunnelError> {
    let mut published = vec![];
    for endpoint in &link.venue.endpoints {
        let name = endpoint.name();
        match grant::urls(name, endpoint.label(), granted) {
            Ok(urls) => published.push(publish_at(link, endpoint, urls)?),
            Err(ControlFailure::Refused(refused)) if !published.is_empty() => {
                let why = Escaped(&refused.text);
                warn!(%name, "the relay refuses an endpoint: {why}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(published)
}

fn publish_at(
    link: &Link,
    endpoint: &Endpoint,
    urls: Vec<OwnUrl>,
) -> Result<Published, CertificateError> {
    let hosts: Vec<_> = urls.iter().map(|own| own.host.to_string()).collect();
    endpoint.serve_at(link.number, &hosts)?;
    let urls: Vec<_> = urls.into_iter().map(|own| own.url).collect();
    Ok(Published {
        name: endpoint.name().clone(),
        key: endpoint.id(),
        shown: urls.first().cloned().into_iter().collect(),
        urls,
    })
}

/// One task for each stream that the relay opens, until the connection ends. The tasks end when
/// this future does.
async fn accept_visits(
    connection: &Connection,
    venue: &Arc<Venue>,
    account: &TunnelBudget,
) -> Closed {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_visit() => match stream {
                Ok(stream) => {
                    let visit = visit::serve(stream, venue.clone(), account.clone());
                    visits.spawn(visit.in_current_span());
                }
                Err(closed) => return closed,
            },
            Some(ended) = visits.join_next() => if ended.is_err_and(|error| error.is_panic()) {
                warn!("a visit failed by a fault of ours; the others go on");
            },
        }
    }
}
