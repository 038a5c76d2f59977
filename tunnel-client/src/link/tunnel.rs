//! A tunnel that serves: streams become visits, grants become the status.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tunnel_common::budget::{MemoryBudget, TunnelBudget};
use tunnel_common::escape::Escaped;
use tunnel_common::tls::CertificateError;
use tunnel_common::wire::frame::{Granted, Hello};

use super::connection::{Closed, Connection};
use super::control::{Control, ControlFailure};
use super::grant::{self, OwnUrl};
use crate::endpoint::Endpoint;
use crate::status::{Published, Status};
use crate::visit::{self, Venue};

/// How a tunnel that had a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// What the relay said, or failed to say.
    #[error(transparent)]
    Control(#[from] ControlFailure),
    /// A certificate for the granted names could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What a tunnel needs beside its connection.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    /// What all visits share.
    pub(crate) venue: &'a Arc<Venue>,
    /// What local services that do not read may pin.
    pub(crate) budget: &'a MemoryBudget,
    /// Where the agent's state is told.
    pub(crate) status: &'a watch::Sender<Status>,
}

/// Serves `connection` until it ends (an error) or `shutdown` fires.
///
/// Its visits end with it. Dropping the future resets them and closes the connection.
pub(crate) async fn serve(
    connection: &Connection,
    hello: Hello,
    serving: Serving<'_>,
    shutdown: &CancellationToken,
) -> Result<(), TunnelError> {
    let timeouts = &serving.venue.timeouts;
    let opening = Control::open(connection, hello, timeouts);
    let Some(opened) = shutdown.run_until_cancelled(opening).await else {
        return Ok(());
    };
    let (mut control, welcome) = opened.map_err(|error| root_cause(connection, error.into()))?;
    publish(&serving, &welcome.granted)?;
    let (relay, relay_id) = (connection.remote_address(), Escaped(&welcome.relay_id));
    info!(%relay, %relay_id, transport = connection.transport(), "tunnel serves");

    let account = serving.budget.tunnel();
    let mut visits = pin!(accept_visits(connection, serving.venue, &account));
    let mut windows = account.lower_windows();
    let rewindow = async {
        loop {
            connection.lower_window(windows.next().await);
        }
    };
    tokio::select! {
        error = follow_grants(&mut control, &serving) => return Err(root_cause(connection, error)),
        error = &mut visits => return Err(ControlFailure::Connection(error).into()),
        () = rewindow => {}
        () = shutdown.cancelled() => {}
    }
    // Visitors who were sent before the relay hears of it are still served meanwhile.
    tokio::select! {
        () = control.leave(timeouts) => {}
        _ = visits => {}
    }
    Ok(())
}

/// Takes each change of what is granted, until the tunnel ends or the relay takes all away.
async fn follow_grants(control: &mut Control, serving: &Serving<'_>) -> TunnelError {
    loop {
        match control.next_grant().await {
            Ok(granted) => {
                if let Err(error) = publish(serving, &granted) {
                    return error;
                }
            }
            Err(error) => return error.into(),
        }
    }
}

/// Where the connection itself is gone, that is why everything on it failed.
fn root_cause(connection: &Connection, error: TunnelError) -> TunnelError {
    match connection.close_reason() {
        Some(reason) => ControlFailure::Connection(reason).into(),
        None => error,
    }
}

/// Takes what the relay granted: certificates first, then the status. The first endpoint must be
/// granted; another one may be missing.
fn publish(serving: &Serving<'_>, granted: &[Granted]) -> Result<(), TunnelError> {
    let mut published = vec![];
    for endpoint in &serving.venue.endpoints {
        let name = endpoint.name();
        match grant::urls(name, endpoint.label(), granted) {
            Ok(urls) => published.push(publish_at(endpoint, urls)?),
            Err(ControlFailure::Refused(refused)) if !published.is_empty() => {
                let why = Escaped(&refused.text);
                warn!(%name, "the relay refuses an endpoint: {why}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    serving.status.send_replace(Status::Serving(published));
    Ok(())
}

fn publish_at(endpoint: &Endpoint, urls: Vec<OwnUrl>) -> Result<Published, CertificateError> {
    let hosts: Vec<_> = urls.iter().map(|own| own.host.to_string()).collect();
    endpoint.serve_at(&hosts)?;
    Ok(Published {
        name: endpoint.name().clone(),
        key: endpoint.id(),
        urls: urls.into_iter().map(|own| own.url).collect(),
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
                    visits.spawn(visit::serve(stream, venue.clone(), account.clone()));
                }
                Err(closed) => return closed,
            },
            Some(ended) = visits.join_next() => if ended.is_err_and(|error| error.is_panic()) {
                warn!("a visit failed by a fault of ours; the others go on");
            },
        }
    }
}
