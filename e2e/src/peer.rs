//! An agent made by hand from quinn and the wire's own types, for what a real one would never do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tunnel_common::identity::Label;
use tunnel_common::wire::alpn;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{
    EndpointKind, EndpointRef, Frame, Hello, Instance, Wanted, Welcome,
};
use tunnel_common::{key, tls};

use crate::poll::soon;
use crate::visitor::AnyCertificate;

/// A QUIC connection with a proved key, and no manners.
#[derive(Debug)]
pub struct Peer {
    /// The connection to the relay.
    pub connection: Connection,
    /// The id of its key.
    pub id: Label,
    _endpoint: Endpoint,
}

/// The two halves of a peer's control stream.
#[derive(Debug)]
pub struct PeerControl {
    /// From the relay.
    pub reader: ControlReader<RecvStream>,
    /// To the relay.
    pub writer: ControlWriter<SendStream>,
}

/// Connects to the relay at `api` with `key`, granting it this many streams at once.
pub async fn connect(api: SocketAddr, key: &KeyPair, streams: u32) -> Peer {
    connect_with(api, key, |transport| {
        transport.max_concurrent_bidi_streams(streams.into());
    })
    .await
}

/// Connects to the relay at `api` with `key` and a changed transport.
pub async fn connect_with(
    api: SocketAddr,
    key: &KeyPair,
    change: impl FnOnce(&mut TransportConfig),
) -> Peer {
    let certified = tls::self_signed(key, &[]).expect("a certificate");
    let connection = dial_with(api, Some(certified), alpn::QUIC, change);
    let (endpoint, connection) = connection.await.expect("the relay takes the connection");
    Peer {
        connection,
        id: key::fingerprint(key).label(),
        _endpoint: endpoint,
    }
}

/// Dials with any certificate, or none: the handshake may fail.
pub async fn dial(
    api: SocketAddr,
    identity: Option<CertifiedKey>,
    streams: u32,
) -> Result<(Endpoint, Connection), quinn::ConnectionError> {
    dial_with(api, identity, alpn::QUIC, |transport| {
        transport.max_concurrent_bidi_streams(streams.into());
    })
    .await
}

/// Dials with any certificate, offering this protocol, with a changed transport.
pub async fn dial_with(
    api: SocketAddr,
    identity: Option<CertifiedKey>,
    protocol: &[u8],
    change: impl FnOnce(&mut TransportConfig),
) -> Result<(Endpoint, Connection), quinn::ConnectionError> {
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3");
    let builder = builder.with_root_certificates(RootCertStore::empty());
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(AnyCertificate));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    let mut quic = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("QUIC")));
    let mut transport = TransportConfig::default();
    // As an agent does always: a story on a busy machine is no dead peer.
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    change(&mut transport);
    quic.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let connecting = endpoint.connect_with(quic, api, "relay").expect("dials");
    let connection = soon("the handshake", connecting).await?;
    Ok((endpoint, connection))
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

/// A wish for an https endpoint.
pub fn wanted(host: Option<String>) -> Wanted {
    let endpoint = EndpointRef::default();
    Wanted {
        endpoint,
        kind: EndpointKind::Https,
        host,
        port: None,
        proof: None,
    }
}

impl Peer {
    /// Opens the control stream.
    pub async fn control(&self) -> PeerControl {
        let (send, recv) = self.connection.open_bi().await.expect("opens");
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

    /// Waits until the relay closes the connection, and gives its code.
    pub async fn closed_with(&self) -> u64 {
        match soon("the relay closes", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("closed otherwise: {other}"),
        }
    }
}

impl PeerControl {
    /// The relay's next frame; `None` at the end or when the stream broke.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("a frame", self.reader.next()).await.ok().flatten()
    }
}
