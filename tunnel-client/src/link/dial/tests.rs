use std::net::UdpSocket;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tunnel_common::budget::MemoryBudget;
use tunnel_common::clock::Clock;
use tunnel_common::quic::Congestion;
use tunnel_common::tls;
use tunnel_common::wire::frame::Instance;

use super::*;
use crate::link::known_relays::KnownRelays;
use crate::link::relay_trust::{Expected, RelayTrust};
use crate::link::verifier::verifier;
use crate::resolve::Resolving;

mod through;

const SHORT: Duration = Duration::from_millis(500);

/// Any name leads to these.
#[derive(Debug)]
struct Addresses(Vec<SocketAddr>);

impl Resolve for Addresses {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn identity() -> CertifiedKey {
    let key = tls::generate_key().expect("a key");
    tls::self_signed(&key, &[]).expect("signs")
}

/// Somebody who shows a key of his own.
fn shower() -> (Endpoint, KeyFingerprint) {
    let identity = identity();
    let key = KeyFingerprint::of_certificate(&identity.cert[0]).expect("a certificate");
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![alpn::QUIC.to_vec()];
    let crypto = QuicServerConfig::try_from(config).expect("QUIC");
    let config = ServerConfig::with_crypto(Arc::new(crypto));
    let any = "127.0.0.1:0".parse().expect("an address");
    (Endpoint::server(config, any).expect("binds"), key)
}

fn dialler(
    trust: RelayTrust,
    known_relays: Option<KnownRelays>,
    addresses: Vec<SocketAddr>,
) -> Dialler {
    let mut timeouts = Timeouts::default();
    timeouts.quic.handshake = SHORT;
    timeouts.tcp_handshake = SHORT;
    timeouts.head_start = SHORT / 10;
    let tls = TlsSettings {
        identity: identity(),
        trust,
        known_relays,
        clock: Clock::default(),
    };
    let transport = OverUdp::new(Congestion::default(), 1 << 20, timeouts.quic);
    let h2 = OverTcp::new(Congestion::default(), MemoryBudget::new(1 << 30), &timeouts);
    // Nobody listens there over TCP: a relay of this machine's own would, at the default port.
    let relay = "relay.example.com:9".parse().expect("a relay");
    let resolver = Arc::new(Addresses(addresses));
    Dialler::new(relay, tls, (transport, h2), timeouts, resolver).expect("a dialler")
}

fn hello() -> Hello {
    Hello {
        instance: Instance::new([1; 16]),
        epoch: 1,
        slot: 0,
        slots: 1,
        agent_version: String::new(),
        features: vec![],
        rev: 0,
        wanted: vec![],
    }
}

/// Answers all who come, until it is dropped.
async fn answer(endpoint: &Endpoint) {
    let mut connections = vec![];
    while let Some(incoming) = endpoint.accept().await {
        connections.push(incoming.await);
    }
}

#[tokio::test]
async fn a_wrong_key_at_one_address_is_told_though_another_is_silent_for_longer() {
    let (wrong, shown) = shower();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let addresses = vec![
        wrong.local_addr().expect("bound"),
        silent.local_addr().expect("bound"),
    ];
    let pin = RelayTrust::Pinned(KeyFingerprint::of_spki(b"another"));
    let dialler = dialler(pin, None, addresses);
    let (ways, hello) = ([Way::Quic, Way::H2], hello());
    let error = tokio::select! {
        reached = dialler.reach(&ways, &hello) => reached.expect_err("nobody is the relay"),
        () = answer(&wrong) => unreachable!("it listens"),
    };
    assert!(matches!(error, DialError::Untrusted(..)), "{error}");
    assert!(error.to_string().contains(&shown.to_string()), "{error}");
}

#[tokio::test]
async fn a_relay_that_is_busy_at_one_address_is_not_passed_by_though_another_is_silent() {
    let (busy, _) = shower();
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let addresses = vec![
        silent.local_addr().expect("bound"),
        busy.local_addr().expect("bound"),
    ];
    let dialler = dialler(RelayTrust::FirstUse, None, addresses);
    let refuse = async {
        while let Some(incoming) = busy.accept().await {
            incoming.refuse();
        }
    };
    let (ways, hello) = ([Way::Quic, Way::H2], hello());
    let error = tokio::select! {
        reached = dialler.reach(&ways, &hello) => reached.expect_err("it takes nobody"),
        () = refuse => unreachable!("it listens"),
    };
    assert!(matches!(error, DialError::Busy(_)), "{error}");
}

#[tokio::test]
async fn the_key_of_the_connection_that_wins_is_believed_and_stays_when_the_file_vanishes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = KnownRelays::new(folder.path().join("known_relays"));
    let (first, key) = shower();
    let addresses = vec![first.local_addr().expect("bound")];
    let dialler = dialler(RelayTrust::FirstUse, Some(file.clone()), addresses.clone());
    let belief = &dialler.belief;
    let dial = async || {
        let rule = belief.choose().await.expect("chooses");
        tokio::select! {
            reached = dialler.connect(Way::Quic, &addresses, &rule) => {
                let first_seen = reached.expect("answers").first_seen;
                belief.reached(rule, first_seen).await.expect("is believed");
            }
            () = answer(&first) => unreachable!("it listens"),
        }
    };
    dial().await;
    let known = file.find(dialler.relay()).expect("reads");
    assert_eq!(known.map(|known| known.key), Some(key));
    std::fs::remove_file(file.path()).expect("is there");
    let rule = belief.choose().await.expect("chooses");
    let is_kept = matches!(&rule, Rule::Key(Expected { key: kept, .. }) if *kept == key);
    assert!(is_kept, "{rule:?}");
    std::fs::write(file.path(), "# emptied\n").expect("writes");
    let rule = belief.choose().await.expect("chooses");
    assert!(matches!(rule, Rule::FirstUse), "{rule:?}");
}

#[tokio::test]
async fn a_key_that_another_process_recorded_meanwhile_is_told_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = KnownRelays::new(folder.path().join("known_relays"));
    let dialler = dialler(RelayTrust::FirstUse, Some(file.clone()), vec![]);
    let other = KeyFingerprint::of_spki(b"other");
    file.record(dialler.relay(), other).expect("writes");
    let believing = dialler
        .belief
        .believe(KeyFingerprint::of_spki(b"ours"))
        .await;
    let error = believing.expect_err("is another").to_string();
    assert!(error.contains("known_relays, line 2"), "{error}");
}

#[tokio::test]
async fn no_authority_at_all_is_no_way_to_say_the_public_ones() {
    let none = Rule::Authority(vec![]);
    assert!(verifier(&none, Arc::default(), tls::provider()).is_err());
    assert!(verifier(&Rule::PublicAuthority, Arc::default(), tls::provider()).is_ok());
}
