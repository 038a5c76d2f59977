//! A relay with what nobody can ask of it from outside.

use std::net::Ipv4Addr;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel_common::tls;
use tunnel_common::wire::alpn;

use super::*;
use crate::cert;
use crate::public::challenge::tests::challenge;

const HOST: &str = "relay.example";

/// A relay in development mode, on free ports.
fn relay() -> Server {
    let key = tls::generate_key().expect("a key");
    let identity = cert::self_signed(&key, &["localhost".to_owned()]).expect("a certificate");
    let config = Config {
        bind_addr: Ipv4Addr::LOCALHOST.into(),
        api_port: 0,
        pub_port: 0,
        alpn_port: None,
        max_visits: 100,
        ..Config::development(identity)
    };
    Server::bind(&config).expect("binds")
}

/// Asks for the relay's challenge, as a certificate authority that knows what it should see.
async fn validate(
    relay: SocketAddr,
    expected: CertificateDer<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(expected).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn::ACME_TLS.to_vec()];
    let tcp = TcpStream::connect(relay).await?;
    let name = ServerName::try_from(HOST).expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn a_certificate_authority_sees_the_relays_own_challenge_while_it_is_shown() {
    let server = relay();
    let (public, challenges) = (
        server.addresses().public[0],
        server.state.challenges.clone(),
    );
    let end = CancellationToken::new();
    let running = tokio::spawn(server.run(end.clone()));
    let (config, certificate) = challenge(HOST);
    let shown = challenges.set(HOST.parse().expect("a host name"), config);

    let mut seen = validate(public, certificate.clone())
        .await
        .expect("a handshake");
    assert_eq!(seen.get_ref().1.alpn_protocol(), Some(alpn::ACME_TLS));
    let mut said = vec![];
    seen.read_to_end(&mut said).await.expect("a clean end");
    assert!(said.is_empty(), "{said:?}");

    drop(shown);
    let error = validate(public, certificate).await.expect_err("refused");
    assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol));
    end.cancel();
    running.await.expect("no panic").expect("its socket lives");
}
