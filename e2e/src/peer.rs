//! An agent made by hand from quinn or h2 and the wire's own types, for what a real one would never
//! do.

use std::net::SocketAddr;

use quinn::{Connection, ConnectionError, Endpoint};
use rcgen::KeyPair;
use tunnel_common::identity::Label;
use tunnel_common::proof::Exporter;
use tunnel_common::quic::exporter;
use tunnel_common::wire::alpn;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{
    EndpointKind, EndpointRef, Frame, Hello, Instance, Wanted, Welcome,
};
use tunnel_common::{key, tls as common_tls};

use crate::poll::soon;
use crate::transport::Over;
use streams::{PeerRecv, PeerSend};

mod h2;
pub mod quic;
pub mod streams;
mod tls;

/// A connection with a proved key, and no manners.
#[derive(Debug)]
pub struct Peer {
    /// The id of its key.
    pub id: Label,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Quic {
        connection: Connection,
        _endpoint: Endpoint,
    },
    H2(h2::H2Link),
}

/// The two halves of a peer's control stream.
#[derive(Debug)]
pub struct PeerControl {
    /// From the relay.
    pub reader: ControlReader<PeerRecv>,
    /// To the relay.
    pub writer: ControlWriter<PeerSend>,
}

/// Connects to the relay at `api` with `key`, granting it this many visits at once.
pub async fn connect(over: Over, api: SocketAddr, key: &KeyPair, streams: u32) -> Peer {
    connect_granting(over, api, key, streams, None).await
}

/// Streams that a narrow peer grants: its windows are what it is about.
const STREAMS: u32 = 100;

/// Connects to the relay at `api` with `key`, granting it so many bytes ahead on each stream.
pub async fn connect_narrow(over: Over, api: SocketAddr, key: &KeyPair, window: u32) -> Peer {
    connect_granting(over, api, key, STREAMS, Some(window)).await
}

async fn connect_granting(
    over: Over,
    api: SocketAddr,
    key: &KeyPair,
    streams: u32,
    window: Option<u32>,
) -> Peer {
    let certified = common_tls::self_signed(key, &[]).expect("a certificate");
    let link = match over {
        Over::Quic => {
            let connection = quic::dial_with(api, Some(certified), alpn::QUIC, |transport| {
                transport.max_concurrent_bidi_streams(streams.into());
                if let Some(window) = window {
                    transport.stream_receive_window(window.into());
                }
            });
            let (_endpoint, connection) = connection.await.expect("the relay takes the connection");
            Link::Quic {
                connection,
                _endpoint,
            }
        }
        Over::H2 => Link::H2(h2::dial(api, certified, &h2::settings(streams, window)).await),
    };
    let id = key::fingerprint(key).label();
    Peer { id, link }
}

/// What an ordinary agent says first.
pub fn hello(instance: u8, epoch: u64) -> Hello {
    Hello {
        instance: Instance::new([instance; 16]),
        epoch,
        slot: 0,
        slots: 1,
        agent_version: "by hand".to_owned(),
        features: vec![],
        rev: 1,
        wanted: vec![wanted(None)],
    }
}

/// A wish for an https endpoint, by a process that orders no certificates.
pub fn wanted(host: Option<String>) -> Wanted {
    let endpoint = EndpointRef::default();
    Wanted {
        endpoint,
        kind: EndpointKind::Https,
        host,
        port: None,
        proof: None,
        orders: false,
    }
}

impl Peer {
    /// The control stream, which over QUIC the agent opens, and the relay over HTTP/2.
    pub async fn control(&self) -> PeerControl {
        let (send, recv) = match &self.link {
            Link::Quic { connection, .. } => {
                let (send, recv) = connection.open_bi().await.expect("opens");
                (PeerSend::Quic(send), PeerRecv::Quic(recv))
            }
            Link::H2(link) => {
                let mut control = link.control.lock().await;
                let opened = soon("the control stream", control.recv()).await;
                opened.expect("the tunnel lives")
            }
        };
        PeerControl {
            reader: ControlReader::new(recv),
            writer: ControlWriter::new(send),
        }
    }

    /// Says Hello as an ordinary agent does, and must be welcome.
    pub async fn register(&self, hello: Hello) -> (PeerControl, Welcome) {
        let mut control = self.control().await;
        control
            .writer
            .send(&Frame::Hello(hello))
            .await
            .expect("sends");
        match control.next().await {
            Some(Frame::Welcome(welcome)) => (control, welcome),
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// The next stream that the relay opens for a visit. Cancel safe.
    pub async fn accepts(&self) -> (PeerSend, PeerRecv) {
        match &self.link {
            Link::Quic { connection, .. } => {
                let accepted = connection.accept_bi().await;
                let (send, recv) = accepted.expect("the tunnel lives");
                (PeerSend::Quic(send), PeerRecv::Quic(recv))
            }
            Link::H2(link) => {
                let accepted = link.visits.lock().await.recv().await;
                accepted.expect("the tunnel lives")
            }
        }
    }

    /// What only the two ends of the connection know.
    pub fn exporter(&self) -> Exporter {
        match &self.link {
            Link::Quic { connection, .. } => exporter(connection).expect("is connected"),
            Link::H2(link) => link.exporter,
        }
    }

    /// Whether nobody has closed the connection yet.
    pub fn is_open(&self) -> bool {
        match &self.link {
            Link::Quic { connection, .. } => connection.close_reason().is_none(),
            Link::H2(link) => link.end() == h2::End::NotYet,
        }
    }

    /// Ends the connection.
    pub fn close(&self) {
        match &self.link {
            Link::Quic { connection, .. } => connection.close(0_u32.into(), b""),
            Link::H2(link) => link.cut(),
        }
    }

    /// Waits until the relay closes the connection, and gives its code.
    pub async fn closed_with(&self) -> Code {
        match &self.link {
            Link::Quic { connection, .. } => {
                match soon("the relay closes", connection.closed()).await {
                    ConnectionError::ApplicationClosed(close) => close.error_code.into(),
                    other => panic!("closed otherwise: {other}"),
                }
            }
            Link::H2(link) => {
                let code = soon("the relay closes", link.closed()).await;
                code.expect("the relay says why")
            }
        }
    }

    /// The connection of a story that is about QUIC.
    pub fn quic(&self) -> &Connection {
        match &self.link {
            Link::Quic { connection, .. } => connection,
            Link::H2(_) => panic!("it came over HTTP/2"),
        }
    }
}

impl PeerControl {
    /// The relay's next frame; `None` at the end or when the stream broke.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("a frame", self.reader.next()).await.ok().flatten()
    }
}
