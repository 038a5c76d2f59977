//! The hand-made agent's HTTP/2 connection: TLS to the relay, and then HTTP/2's server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::server::{self, Connection};
use http::Response;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel_common::h2::{CONNECTION_WINDOW, Purpose, close_code, exporter, server_builder};
use tunnel_common::proof::Exporter;
use tunnel_common::wire::alpn;
use tunnel_common::wire::code::Code;

use super::streams::{PeerRecv, PeerSend};
use super::tls::tls_config;
use crate::poll::soon;

/// A stream that the relay has opened, and the peer answered.
pub(super) type Accepted = (PeerSend, PeerRecv);

/// A connection that a task of its own moves. Dropping it cuts it.
#[derive(Debug)]
pub(super) struct H2Link {
    pub(super) exporter: Exporter,
    pub(super) control: Mutex<UnboundedReceiver<Accepted>>,
    pub(super) visits: Mutex<UnboundedReceiver<Accepted>>,
    end: watch::Receiver<End>,
    driving: AbortHandle,
}

/// How the connection stands, and with what code the relay ended it, if it said one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    NotYet,
    Over(Option<Code>),
}

/// Dials, and shakes hands. The relay gets these settings.
pub(super) async fn dial(
    api: SocketAddr,
    identity: CertifiedKey,
    settings: &server::Builder,
) -> H2Link {
    let tcp = TcpStream::connect(api).await.expect("connects");
    tcp.set_nodelay(true).expect("is connected");
    let config = Arc::new(tls_config(Some(identity), alpn::H2));
    let name = ServerName::try_from("relay").expect("a name");
    let connecting = TlsConnector::from(config).connect(name, tcp);
    let tls = soon("TLS", connecting).await.expect("a handshake");
    let exporter = exporter(tls.get_ref().1).expect("a relay");
    let connection = soon("HTTP/2", settings.handshake(tls)).await;
    let connection = connection.expect("the relay takes the connection");
    let ((to_control, control), (to_visits, visits)) = (unbounded_channel(), unbounded_channel());
    let (ends, end) = watch::channel(End::NotYet);
    let driving = tokio::spawn(async move {
        let code = accept(connection, to_control, to_visits).await;
        ends.send_replace(End::Over(code));
    });
    H2Link {
        exporter,
        control: Mutex::new(control),
        visits: Mutex::new(visits),
        end,
        driving: driving.abort_handle(),
    }
}

/// What an agent tells the relay by default, but for so many visits at once, each of which may send
/// so many bytes ahead.
pub(super) fn settings(streams: u32, window: Option<u32>) -> server::Builder {
    let mut settings = server_builder(CONNECTION_WINDOW);
    // One is for control.
    settings.max_concurrent_streams(streams + 1);
    if let Some(window) = window {
        settings.initial_window_size(window);
    }
    settings
}

/// Answers every request until the connection is over.
async fn accept(
    mut connection: Connection<TlsStream<TcpStream>, Bytes>,
    control: UnboundedSender<Accepted>,
    visits: UnboundedSender<Accepted>,
) -> Option<Code> {
    let mut said = None;
    while let Some(accepted) = connection.accept().await {
        let Ok((request, mut respond)) = accepted else {
            return said;
        };
        if let Some(code) = close_code(&request) {
            said = Some(code);
            connection.abrupt_shutdown(Reason::NO_ERROR);
            continue;
        }
        let to = match Purpose::of(&request).expect("a request of ours") {
            Purpose::Control => &control,
            Purpose::Visit => &visits,
        };
        // One that was reset before it was accepted takes no answer.
        if let Ok(send) = respond.send_response(Response::new(()), false) {
            let recv = PeerRecv::H2(request.into_body(), Bytes::new());
            // A story that is over wants no more visits.
            let _ = to.send((PeerSend::H2(send), recv));
        }
    }
    said
}

impl H2Link {
    /// How it stands.
    pub(super) fn end(&self) -> End {
        *self.end.borrow()
    }

    /// Waits until it is over, and gives the relay's code.
    pub(super) async fn closed(&self) -> Option<Code> {
        let mut end = self.end.clone();
        let over = end.wait_for(|end| *end != End::NotYet).await;
        match *over.expect("says so before it ends") {
            End::Over(code) => code,
            End::NotYet => unreachable!("waited for"),
        }
    }

    /// Cuts it.
    pub(super) fn cut(&self) {
        self.driving.abort();
    }
}

impl Drop for H2Link {
    fn drop(&mut self) {
        self.cut();
    }
}
