//! How an agent knows its relay, and what it does about one that it does not know.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use e2e::agent::{new_key, start};
use e2e::authority::{Authority, private};
use e2e::false_relay::{self, false_relay};
use e2e::origin::http;
use e2e::pair::{self, Server, at, server, server_at};
use e2e::poll::until_ok;
use e2e::ports;
use e2e::process::{self, Process, folder};
use e2e::relay::relay_identity;
use e2e::visitor::get;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use tempfile::TempDir;
use tunnel_client::config::{Config, EndpointConfig};
use tunnel_client::link::known_relays::KnownRelays;
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::resolve::{Resolve, Resolving};
use tunnel_common::identity::KeyFingerprint;

// TLS alerts (RFC 8446, 6.2).
const BAD_CERTIFICATE: u8 = 42;
const UNKNOWN_CA: u8 = 48;
const ACCESS_DENIED: u8 = 49;
const DECRYPT_ERROR: u8 = 51;

/// Starts a `client` for the relay at `api`, its files in `folder`.
fn client(api: SocketAddr, origin: SocketAddr, flags: &[&str], folder: Arc<TempDir>) -> Process {
    let (api, local) = (api.to_string(), origin.to_string());
    let all = [&["--server", &api, "--local", &local], flags].concat();
    process::client(&all, folder)
}

fn known(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("known_relays")).unwrap_or_default()
}

async fn stop(mut process: Process) -> String {
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code().await, 0);
    process.log()
}

/// A relay at a place that others can take after it: its ports and its folder.
struct Place {
    api: ports::Reserved<UdpSocket>,
    public: ports::Reserved<std::net::TcpListener>,
}

impl Place {
    fn new() -> Self {
        Self {
            api: ports::udp(),
            public: ports::tcp(),
        }
    }

    async fn server(&self, data: &Path) -> Server {
        server_at(&at(self.api.port, self.public.port, data)).await
    }
}

#[tokio::test]
async fn a_relay_without_a_public_name_is_believed_once_and_expected_from_then_on() {
    let (server, origin, files) = (server(&[]).await, http("x").await, folder());
    let first = pair::serving(client(server.api, origin.address, &[], files.clone())).await;
    let log = stop(first.process).await;
    assert!(
        log.contains("believed on first sight") && log.contains(&server.key),
        "{log}"
    );
    let recorded = format!("{} {}\n", server.api, server.key);
    assert!(known(&files).ends_with(&recorded), "{}", known(&files));

    let again = pair::serving(client(server.api, origin.address, &[], files.clone())).await;
    let log = stop(again.process).await;
    assert!(
        !log.contains("first sight") && !log.contains("WARN"),
        "{log}"
    );
    assert!(known(&files).ends_with(&recorded), "{}", known(&files));
}

#[tokio::test]
async fn a_relay_that_shows_another_key_is_refused_until_the_user_accepts_it() {
    let (place, data, origin, files) = (Place::new(), folder(), http("new").await, folder());
    let first = place.server(data.path()).await;
    let (api, old) = (first.api, first.key.clone());
    let client = client(api, origin.address, &[], files.clone());
    client.logs("tunnel serves").await;
    stop(first.process).await;

    let others = folder();
    let second = place.server(others.path()).await;
    client.logs("NOT THE EXPECTED ONE").await;
    let log = client.log();
    let complaint = log
        .lines()
        .find(|line| line.contains("NOT THE EXPECTED ONE"));
    let complaint = complaint.expect("was waited for");
    let file = files.path().join("known_relays").display().to_string();
    for part in [&old, &second.key, &file, "line 2", "--server-fingerprint"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }

    // What it says is enough, and the client that runs need not be touched.
    let line = format!("{api} {old}\n");
    let text = known(&files);
    assert!(text.contains(&line), "{text}");
    std::fs::write(&file, text.replace(&line, "")).expect("writes");
    client.logs(&second.key).await;
    let client = pair::serving(client).await;
    let body = until_ok("a visitor is served", async || {
        get(second.visitors(), client.host()).await
    });
    assert_eq!(body.await, "new");
    assert!(known(&files).ends_with(&format!("{api} {}\n", second.key)));
}

#[tokio::test]
async fn a_fingerprint_that_the_user_gives_comes_before_what_is_recorded() {
    let (server, origin, files) = (server(&[]).await, http("x").await, folder());
    let wrong = KeyFingerprint::of_spki(b"another key");
    let path = files.path().join("known_relays");
    let recorded = format!("{} {wrong}\n", server.api);
    std::fs::write(&path, &recorded).expect("writes");
    let refused = client(server.api, origin.address, &[], files.clone());
    refused.logs("NOT THE EXPECTED ONE").await;
    let pin = ["--server-fingerprint", &server.key];
    let pinned = client(server.api, origin.address, &pin, files.clone());
    pair::serving(pinned).await;
    assert_eq!(known(&files), recorded, "a pin records nothing");
}

#[tokio::test]
async fn a_known_relays_file_that_can_not_be_used_is_a_mistake_to_be_mended_first() {
    let (files, api) = (folder(), "127.0.0.1:1".parse().expect("an address"));
    let path = files.path().join("known_relays");
    std::fs::write(&path, "\nrubbish\n").expect("writes");
    let mut client = client(api, api, &[], files);
    assert_eq!(client.exit_code().await, 2);
    let log = client.log();
    assert!(
        log.contains("known_relays, line 2") && log.contains("rubbish"),
        "{log}"
    );
}

#[tokio::test]
async fn where_nothing_can_be_recorded_a_relay_is_believed_as_long_as_the_agent_runs() {
    let (place, data, origin) = (Place::new(), folder(), http("x").await);
    let first = place.server(data.path()).await;
    let address = first.api.to_string().parse().expect("an address");
    let local = origin.address.to_string().parse().expect("a service");
    let mut config = Config::new(address, EndpointConfig::new(new_key(), local));
    config.known_relays = Some(KnownRelays::new("/proc/none/known_relays"));
    let agent = start(config);
    let host = agent.host().await;
    assert_eq!(get(first.visitors(), &host).await.expect("an answer"), "x");
    let api = first.api;
    stop(first.process).await;
    agent.is_cut_off().await;

    let thief = false_relay::at(api, Arc::unwrap_or_clone(relay_identity()));
    assert_eq!(thief.dialled().await, Err(ACCESS_DENIED));
    drop(thief);
    let free = until_ok("the thief has gone", async || UdpSocket::bind(api));
    drop(free.await);
    let _again = place.server(data.path()).await;
    assert_eq!(agent.host().await, host);
}

/// Any name leads to loopback.
#[derive(Debug)]
struct Loopback(SocketAddr);

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(async { Ok(vec![self.0]) })
    }
}

/// An agent for `relay.example.com`, which is at `api`.
fn far(api: SocketAddr, trust: Option<RelayTrust>) -> Config {
    let local = "127.0.0.1:1".parse().expect("a service");
    let relay = "relay.example.com".parse().expect("a relay");
    let mut config = Config::new(relay, EndpointConfig::new(new_key(), local));
    config.resolver = Arc::new(Loopback(api));
    if let Some(trust) = trust {
        config.relays[0].trust = trust;
    }
    config
}

#[tokio::test]
async fn a_relay_with_a_public_name_needs_a_public_certificate_unless_the_user_says_otherwise() {
    let relay = false_relay(Arc::unwrap_or_clone(relay_identity()));
    let _refuses = start(far(relay.api, None));
    assert_eq!(relay.dialled().await, Err(UNKNOWN_CA));
    let _believes = start(far(relay.api, Some(RelayTrust::FirstUse)));
    assert_eq!(relay.dialled().await, Ok(()));
}

#[tokio::test]
async fn a_relay_that_shows_the_pinned_certificate_without_its_key_is_refused() {
    let (true_relay, own) = (relay_identity(), relay_identity());
    let pin = KeyFingerprint::of_certificate(&true_relay.cert[0]).expect("a certificate");
    let thief = CertifiedKey::new(true_relay.cert.clone(), own.key.clone());
    let thief = false_relay(thief);
    for trust in [RelayTrust::Pinned(pin), RelayTrust::FirstUse] {
        let agent = start(far(thief.api, Some(trust.clone())));
        assert_eq!(thief.dialled().await, Err(DECRYPT_ERROR), "{trust:?}");
        drop(agent);
    }
    let honest = false_relay(Arc::unwrap_or_clone(true_relay));
    let _agent = start(far(honest.api, Some(RelayTrust::Pinned(pin))));
    assert_eq!(honest.dialled().await, Ok(()));
}

#[tokio::test]
async fn a_key_that_was_not_proved_is_not_recorded() {
    let (copied, own, files) = (relay_identity(), relay_identity(), folder());
    let thief = CertifiedKey::new(copied.cert.clone(), own.key.clone());
    let thief = false_relay(thief);
    let mut config = far(thief.api, Some(RelayTrust::FirstUse));
    let known = KnownRelays::new(files.path().join("known_relays"));
    config.known_relays = Some(known.clone());
    let _agent = start(config);
    assert_eq!(thief.dialled().await, Err(DECRYPT_ERROR));
    assert_eq!(thief.dialled().await, Err(DECRYPT_ERROR), "it comes back");
    assert!(!known.path().exists());
}

#[tokio::test]
async fn an_authority_of_the_users_own_vouches_for_the_relay_by_its_name() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = folder();
    let (chain, key) = ours.sign("localhost");
    let chain = private(&files.path().join("relay.pem"), &chain);
    let key = private(&files.path().join("tls.key"), &key);
    let ca = private(&files.path().join("ca.pem"), &ours.pem());
    let other = private(&files.path().join("other.pem"), &others.pem());
    let server = server(&["--tls-cert", &chain, "--tls-key", &key]).await;
    let origin = http("vouched for").await;
    let local = origin.address.to_string();
    let dial = |host: &str, ca: &str| {
        let relay = format!("{host}:{}", server.api.port());
        let flags = ["--server", &relay, "--local", &local, "--server-ca", ca];
        process::client(&flags, folder())
    };
    let served = pair::serving(dial("localhost", &ca)).await;
    let body = get(server.visitors(), served.host()).await;
    assert_eq!(body.expect("an answer"), "vouched for");
    let refusing = dial("localhost", &other);
    refusing.logs("UnknownIssuer").await;
    for way_out in [
        "--server-fingerprint",
        "--server-ca",
        "--trust-on-first-use",
    ] {
        refusing.logs(way_out).await;
    }
    dial("127.0.0.1", &ca).logs("not valid for").await;
}

#[tokio::test]
async fn what_can_not_be_an_authority_is_a_mistake() {
    let files = folder();
    let missing = files.path().join("missing.pem").display().to_string();
    let empty = private(&files.path().join("empty.pem"), "no certificate");
    for file in [&missing, &empty] {
        let flags = ["--server", "relay.example", "--server-ca", file];
        let mut client = process::client(&flags, folder());
        assert_eq!(client.exit_code().await, 2);
        client.logs("--server-ca: ").await;
        client.logs(file).await;
    }
    let two = ["--trust-on-first-use", "--server-ca", &empty];
    let pin = KeyFingerprint::of_spki(b"x").to_string();
    let rules = [
        &two[..],
        &["--trust-on-first-use", "--server-fingerprint", &pin],
    ];
    for rules in rules {
        let flags = [&["--server", "relay.example"], rules].concat();
        let mut client = process::client(&flags, folder());
        assert_eq!(client.exit_code().await, 2, "exactly one rule: {rules:?}");
    }
}

#[tokio::test]
async fn a_relay_whose_chain_is_rubbish_is_refused_under_every_rule() {
    let own = relay_identity();
    let pin = KeyFingerprint::of_certificate(&own.cert[0]).expect("a certificate");
    let rubbish = CertificateDer::from(b"rubbish".to_vec());
    let relay = false_relay(CertifiedKey::new(vec![rubbish], own.key.clone()));
    for trust in [
        None,
        Some(RelayTrust::FirstUse),
        Some(RelayTrust::Pinned(pin)),
    ] {
        let agent = start(far(relay.api, trust.clone()));
        assert_eq!(relay.dialled().await, Err(BAD_CERTIFICATE), "{trust:?}");
        drop(agent);
    }
}
