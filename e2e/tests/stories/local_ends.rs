//! How visits to other local services than plain TCP end: over TLS and over a Unix socket.

use std::io::ErrorKind;
use std::sync::Arc;

use e2e::agent::{Agent, config, new_key, start};
use e2e::poll::soon;
use e2e::process::folder;
use e2e::relay::{Relay, relay_with};
use e2e::stage::{
    Local, drain, drain_to_reset, half_closing_service, half_closing_visitor, local, patient, pour,
    pour_until_stuck, sip,
};
use e2e::transport::Over;
use e2e::visitor::{Visitor, tls_config, visit_with};
use rstest::rstest;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tunnel_client::local::trust::LocalTrust;
use tunnel_common::tls;

type Protocol = &'static [u8];

const MB: usize = 1_000_000;
/// What agent and service offer, if it is their turn to offer.
const PROTOCOLS: [Protocol; 2] = [b"h2", b"http/1.1"];
/// A relay and an agent.
struct Way {
    relay: Relay,
    _agent: Agent,
    host: String,
}

async fn way(over: Over, local: String) -> Way {
    let relay = relay_with(|config| config.timeouts.splice = patient()).await;
    let mut config = config(over, &relay, new_key(), local);
    config.timeouts.splice = patient();
    config.endpoint.alpn = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let local = config.endpoint.local.clone();
    config.endpoint.local = local.with_trust(LocalTrust::Anything);
    let agent = start(config);
    let host = agent.host().await;
    Way {
        relay,
        _agent: agent,
        host,
    }
}

impl Way {
    async fn visitor(&self, alpn: &[&[u8]]) -> Visitor {
        let visitor = visit_with(self.relay.public, &self.host, tls_config(alpn));
        visitor.await.expect("visits")
    }
}

/// A stage whose local service speaks TLS.
struct Https {
    way: Way,
    local: Local,
    acceptor: TlsAcceptor,
}

async fn https(over: Over) -> Https {
    let local = local().await;
    let certified = tls::self_signed(&new_key(), &[]).expect("a certificate");
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Https {
        way: way(over, format!("https://{}", local.address)).await,
        local,
        acceptor: Arc::new(config).into(),
    }
}

impl Https {
    /// One visit: the visitor's end and the local service's.
    async fn visit(&mut self) -> (Visitor, TlsStream<TcpStream>) {
        self.visit_offering(&[b"http/1.1"]).await
    }

    /// One visit of a visitor who offers these protocols.
    async fn visit_offering(&mut self, alpn: &[&[u8]]) -> (Visitor, TlsStream<TcpStream>) {
        let visitor = self.way.visitor(alpn).await;
        let handshake = self.acceptor.accept(self.local.accepts().await);
        let local = soon("TLS with the local service", handshake).await;
        (visitor, local.expect("a handshake"))
    }
}

/// A stage whose local service is at a Unix socket.
struct Unix {
    way: Way,
    listener: UnixListener,
    _folder: Arc<TempDir>,
}

async fn unix(over: Over) -> Unix {
    let folder = folder();
    let path = folder.path().join("local.sock");
    Unix {
        listener: UnixListener::bind(&path).expect("binds"),
        way: way(over, format!("unix:{}", path.display())).await,
        _folder: folder,
    }
}

impl Unix {
    /// One visit: the visitor's end and the local service's.
    async fn visit(&mut self) -> (Visitor, UnixStream) {
        let visitor = self.way.visitor(&[b"http/1.1"]).await;
        let accepted = soon("the agent dials", self.listener.accept()).await;
        (visitor, accepted.expect("accepts").0)
    }
}

#[rstest]
#[tokio::test]
async fn an_https_service_is_offered_what_was_agreed_with_the_visitor_and_nothing_else(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let cases: [(&[Protocol], Option<Protocol>); 3] = [
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[], None),
    ];
    for (offered, agreed) in cases {
        let (visitor, local) = stage.visit_offering(offered).await;
        assert_eq!(visitor.get_ref().1.alpn_protocol(), agreed);
        assert_eq!(local.get_ref().1.alpn_protocol(), agreed);
    }
}

#[rstest]
#[tokio::test]
async fn half_closes_pass_through_to_an_https_service_and_back(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let (visitor, local) = stage.visit().await;
    half_closing_visitor(visitor, local, 20 * MB).await;
    let (visitor, local) = stage.visit().await;
    half_closing_service(visitor, local, 20 * MB).await;
}

#[rstest]
#[tokio::test]
async fn half_closes_pass_through_to_a_unix_socket_and_back(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = unix(over).await;
    let (visitor, local) = stage.visit().await;
    half_closing_visitor(visitor, local, 20 * MB).await;
    let (visitor, local) = stage.visit().await;
    half_closing_service(visitor, local, 20 * MB).await;
}

#[rstest]
#[tokio::test]
async fn an_https_service_that_ends_without_close_notify_is_a_reset_for_the_visitor(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 100_000).await.expect("answers");
    // FIN on TCP, beneath a TLS that knows nothing of it.
    local.get_mut().0.shutdown().await.expect("ends");
    assert_eq!(drain_to_reset(&mut visitor).await, 100_000);
}

#[rstest]
#[tokio::test]
async fn an_https_service_that_resets_is_a_reset_for_the_visitor(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 100_000).await.expect("answers");
    sip(&mut visitor, 100_000).await;
    e2e::origin::reset(local.into_inner().0);
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_an_upload_is_a_reset_for_an_https_service(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, MB).await.expect("uploads");
    sip(&mut local, MB).await;
    e2e::origin::reset(visitor.into_inner().0);
    drain_to_reset(&mut local).await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_is_noticed_though_an_https_service_does_not_read(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = https(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour_until_stuck(&mut visitor).await.expect("uploads");
    e2e::origin::reset(visitor.into_inner().0);
    let broken = local.get_ref().0.ready(tokio::io::Interest::ERROR);
    let broken = soon("the service's socket tells of it", broken).await;
    broken.expect("is registered");
    drain_to_reset(&mut local).await;
}

#[rstest]
#[tokio::test]
async fn a_service_at_a_unix_socket_that_leaves_an_upload_unread_resets_behind_its_answer(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = unix(over).await;
    for turn in 0..10 {
        let (mut visitor, mut local) = stage.visit().await;
        visitor.write_all(&[b'x'; 5000]).await.expect("uploads");
        visitor.flush().await.expect("uploads");
        sip(&mut local, 1).await;
        local.write_all(b"413").await.expect("answers");
        drop(local);
        let (bytes, end) = drain(&mut visitor).await;
        let error = end.expect_err("an answer that was cut off is not complete");
        assert_eq!(bytes, 3, "turn {turn}: {error}");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "turn {turn}");
    }
}

#[rstest]
#[tokio::test]
async fn a_service_at_a_unix_socket_that_dies_while_the_visitor_does_not_read_is_noticed(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = unix(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"request").await.expect("sends");
    visitor.flush().await.expect("sends");
    sip(&mut local, 3).await;
    let poured = pour_until_stuck(&mut local).await.expect("answers");
    drop(local);
    let got = drain_to_reset(&mut visitor).await;
    assert!(got <= poured, "{got} of {poured} came, and then a reset");
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_closes_the_unix_socket_at_once(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = unix(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, MB).await.expect("uploads");
    sip(&mut local, MB).await;
    e2e::origin::reset(visitor.into_inner().0);
    // Unix sockets have no reset that we could send: it reads as an end, and takes nothing more.
    let mut rest = vec![];
    let end = soon("the end", local.read_to_end(&mut rest)).await;
    end.expect("an end");
    let error = local.write_all(b"late").await.expect_err("is closed");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);

    // Unless it had sent something that nobody read: then it is one.
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"request").await.expect("sends");
    visitor.flush().await.expect("sends");
    sip(&mut local, 7).await;
    pour_until_stuck(&mut local).await.expect("answers");
    e2e::origin::reset(visitor.into_inner().0);
    drain_to_reset(&mut local).await;
}
