//! The way to the relay over TCP: TLS, then HTTP/2 with the roles turned, because only its client can
//! open streams: the agent is the server.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel_common::budget::MemoryBudget;
use tunnel_common::coalesce::Coalesced;
use tunnel_common::h2::{MAX_STREAMS, Purpose, exporter};
use tunnel_common::proof::Exporter;
use tunnel_common::quic::Congestion;
use tunnel_common::stream::h2::connection::{Acceptor, Broken, serve};
use tunnel_common::stream::h2::settings::Settings;
use tunnel_common::stream::h2::stream::H2Stream;
use tunnel_common::wire::code::Code;

use super::connection::{Closed, Connection, End, H2Connection};
use super::dial_error::DialError;
use super::pulse::Ends;
use super::route::Route;
use crate::config::Timeouts;
use crate::proxy::target::Target;

/// A relay has one control stream with us; more are nobody's.
const CONTROL_STREAMS: usize = 1;

/// The settings of all attempts over TCP.
#[derive(Debug)]
pub(crate) struct OverTcp {
    congestion: Congestion,
    settings: Settings,
    /// For a connection and its handshakes.
    handshake: Duration,
}

impl OverTcp {
    /// Windows follow `budget`.
    pub(crate) fn new(congestion: Congestion, budget: MemoryBudget, timeouts: &Timeouts) -> Self {
        let settings = Settings {
            ping_every: timeouts.quic.keep_alive,
            silence: timeouts.h2_silence,
            budget,
        };
        Self {
            congestion,
            settings,
            handshake: timeouts.tcp_handshake,
        }
    }
}

/// Connects to the relay `host` by `route`.
pub(super) async fn connect(
    route: &Route<'_>,
    host: &str,
    tls: Arc<ClientConfig>,
    over: &OverTcp,
) -> Result<Connection, DialError> {
    let deadline = Instant::now() + over.handshake;
    let tcp = route.open(over.congestion, deadline).await?;
    let ends = ends(&tcp);
    let failed = |error| DialError::Tcp(route.target(), error);
    let handshakes = async {
        let tls = TlsConnector::from(tls).connect(name(host)?, tcp).await?;
        let exporter = exporter(tls.get_ref().1);
        let exporter = exporter.ok_or_else(|| io::Error::other("it is no relay"))?;
        let acceptor = serve(tls, &over.settings).await.map_err(io::Error::other)?;
        Ok((acceptor, exporter))
    };
    let (acceptor, exporter) = match timeout_at(deadline, handshakes).await {
        Ok(shaken) => shaken.map_err(failed)?,
        Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
    };
    let connection = drive(acceptor, route.target(), exporter, ends);
    Ok(Connection::H2(connection))
}

/// A socket that has broken already has none.
fn ends(tcp: &TcpStream) -> Option<Ends> {
    Some(Ends {
        local: tcp.local_addr().ok()?,
        remote: tcp.peer_addr().ok()?,
    })
}

/// An address is looked for in a certificate as an address.
fn name(host: &str) -> io::Result<ServerName<'static>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other),
    }
}

/// Gives the connection to a task of its own.
fn drive(
    mut acceptor: Acceptor<TlsStream<TcpStream>>,
    target: Target,
    exporter: Exporter,
    ends: Option<Ends>,
) -> H2Connection {
    let (control_sender, control) = mpsc::channel(CONTROL_STREAMS);
    let (visits_sender, visits) = mpsc::channel(MAX_STREAMS as usize);
    let (end, received) = (Arc::new(End::default()), acceptor.received());
    let mut driving = JoinSet::new();
    driving.spawn(Coalesced::new({
        let end = end.clone();
        async move {
            let streams = Streams {
                control: control_sender,
                visits: visits_sender,
            };
            let broken = accept(&mut acceptor, &streams, &end).await;
            end.is_over(match (acceptor.closed(), broken) {
                (Some(code), _) => Closed::by_peer(code),
                (None, Some(broken)) => Closed::from(&broken),
                (None, None) => Closed::without_a_word(),
            });
        }
    }));
    H2Connection {
        target,
        exporter,
        ends,
        received,
        control: Mutex::new(control),
        visits: Mutex::new(visits),
        end,
        driving,
    }
}

/// Where accepted streams go.
struct Streams {
    control: mpsc::Sender<H2Stream>,
    visits: mpsc::Sender<H2Stream>,
}

/// Moves the connection until it is over, and says why if it did not end well.
async fn accept(
    acceptor: &mut Acceptor<TlsStream<TcpStream>>,
    streams: &Streams,
    end: &End,
) -> Option<Broken> {
    let mut closing = Closing::NotYet;
    loop {
        tokio::select! {
            accepted = acceptor.accept() => match accepted {
                // One that nobody wants, or for which there is no room, is dropped, which resets it.
                Some(Ok((Purpose::Control, stream))) => drop(streams.control.try_send(stream)),
                Some(Ok((Purpose::Visit, stream))) => drop(streams.visits.try_send(stream)),
                Some(Err(broken)) => return Some(broken),
                None => return None,
            },
            () = end.wanted.cancelled(), if closing == Closing::NotYet => {
                closing = Closing::Asked;
                acceptor.close(Code::Draining);
            }
        }
    }
}

/// Whether we have asked the relay to close.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    NotYet,
    Asked,
}
