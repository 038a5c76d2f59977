//! The relay gets its own certificate from pebble, which comes to look as a public authority would, through a
//! port of its own before the relay.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{config, new_key, publish, start};
use e2e::authority::{authority, private};
use e2e::front::{Front, front};
use e2e::hello::hello_with;
use e2e::origin::http;
use e2e::pair::{self, Server};
use e2e::pebble::{Pebble, Rules, pebble};
use e2e::poll::{eventually, soon};
use e2e::process::{self, folder, tool};
use e2e::published::text;
use e2e::relay::{Relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{get, key_in, say, tls_config};
use rcgen::KeyPair;
use rstest::rstest;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tunnel_client::config::{Config, RelayConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_common::acme::ca::Acme;
use tunnel_common::acme::credentials::CredentialsFile;
use tunnel_common::acme::dial::Direct;
use tunnel_common::acme::settings::Settings;
use tunnel_common::clock::Clock;
use tunnel_server::acme::AcmeConfig;
use tunnel_server::cert;

use crate::certificates::certificate_shown;

/// The relay's name: no resolver is asked about it.
const NAME: &str = "relay.localhost";
/// Where the relay keeps its chain.
const CHAIN_FILE: &str = "server_acme_cert.pem";
const ACME_TLS: &[u8] = b"acme-tls/1";
/// The alert for no protocol in common (RFC 7301, 3.2).
const NO_APPLICATION_PROTOCOL: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// An authority, the port at which it validates, and what a relay keeps.
struct Stage {
    pebble: Pebble,
    front: Front,
    key: Arc<KeyPair>,
    files: Arc<TempDir>,
}

async fn stage() -> Stage {
    stage_with(Rules::default()).await
}

async fn stage_with(rules: Rules) -> Stage {
    let front = front().await;
    Stage {
        pebble: pebble(front.port(), rules).await,
        front,
        key: Arc::new(new_key()),
        files: folder(),
    }
}

impl Stage {
    /// A relay to which the front leads, as soon as that lets anybody pass.
    async fn relay(&self) -> Relay {
        let identity = cert::self_signed(&self.key, &[NAME.to_owned()]).expect("signs");
        let relay = relay_with(|config| {
            config.identity = identity.into();
            config.acme = Some(self.acme());
        });
        let relay = relay.await;
        self.front.leads_to(relay.public);
        relay
    }

    fn acme(&self) -> AcmeConfig {
        let settings = Settings {
            directory: Some(self.pebble.directory()),
            ca_root: Some(self.pebble.ca_root().to_owned()),
            ..Settings::default()
        };
        let authority = settings.authority(Arc::new(Direct));
        let acme = AcmeConfig {
            host: NAME.parse().expect("a host name"),
            key: self.key.clone(),
            ca: Acme {
                authority: authority.expect("makes sense"),
                credentials: CredentialsFile::new(self.files.path().join("creds.json")),
                validation_port: self.front.port(),
                clock: Clock::system(),
            },
            file: self.chain_file(),
            found: None,
            renew_days: None,
        };
        acme.find().expect("can be used")
    }

    /// The binary, to which the front leads. It lets every agent in.
    async fn server(&self) -> Server {
        let (directory, port) = (self.pebble.directory(), self.front.port().to_string());
        let (root, data) = (text(self.pebble.ca_root()), text(self.files.path()));
        let flags = [
            ["--acme-domain", NAME],
            ["--acme-directory", &directory],
            ["--acme-ca-root", &root],
            ["--acme-email", "story@example.test"],
            ["--acme-validation-port", &port],
            ["--data-dir", &data],
        ];
        let server = pair::server(&[flags.as_flattened(), &["--open"]].concat()).await;
        self.front.leads_to(server.visitors());
        server
    }

    fn chain_file(&self) -> PathBuf {
        self.files.path().join(CHAIN_FILE)
    }

    /// The certificate that is kept.
    fn kept(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.chain_file()).expect("a chain")
    }

    /// An agent that takes every relay for which pebble vouches.
    async fn agent(&self, over: Over, relay: &Relay, origin: SocketAddr) -> Config {
        let root = self.pebble.issuer_root().await;
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM");
        let address = format!("{NAME}:{}", relay.api.port());
        let mut config = config(over, relay, new_key(), origin);
        config.relays = vec![RelayConfig {
            trust: RelayTrust::PrivateCa(vec![root]),
            ..RelayConfig::new(address.parse().expect("an address"))
        }];
        config
    }

    /// Waits until pebble has made so many accounts, orders and certificates.
    async fn has_made(&self, made: (usize, usize, usize)) {
        let pebble = &self.pebble;
        let now = || (pebble.accounts(), pebble.orders(), pebble.issued());
        eventually(&format!("pebble has made {made:?}"), || now() == made).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_relay_gets_its_certificate_and_keeps_the_tunnels_that_were_there_before(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (stage, origin) = (stage().await, http("all the time").await);
    let relay = stage.relay().await;
    let early = publish(over, &relay, origin.address).await;
    let mut status = early.status();
    status.mark_unchanged();
    let before = certificate_shown(over, relay.api).await;

    stage.front.opens();
    relay.is_certified().await;

    let after = certificate_shown(over, relay.api).await;
    assert_ne!(after, before);
    assert_eq!(after, stage.kept());
    assert_eq!(key_in(&after), key_in(&before), "pins hold");
    assert!(
        !status.has_changed().expect("it runs"),
        "it kept its tunnel"
    );
    let late = start(stage.agent(over, &relay, origin.address).await);
    for agent in [&early, &late] {
        let body = get(relay.public, &agent.host().await).await;
        assert_eq!(body.expect("an answer"), "all the time");
    }
    stage.has_made((1, 1, 1)).await;
}

#[rstest]
#[tokio::test]
async fn a_certificate_is_renewed_under_a_tunnel_which_goes_on(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let rules = Rules {
        validity: Duration::from_secs(6),
        ..Rules::default()
    };
    let (stage, origin) = (stage_with(rules).await, http("all the time").await);
    stage.front.opens();
    let relay = stage.relay().await;
    relay.is_certified().await;
    let agent = publish(over, &relay, origin.address).await;
    let mut status = agent.status();
    status.mark_unchanged();
    let first = certificate_shown(over, relay.api).await;

    let mut states = relay.certificate.clone();
    while certificate_shown(over, relay.api).await == first {
        let changed = soon("it is renewed", states.changed()).await;
        changed.expect("the relay runs");
    }

    assert_eq!(key_in(&stage.kept()), key_in(&first));
    assert!(
        !status.has_changed().expect("it runs"),
        "it kept its tunnel"
    );
    let body = get(relay.public, &agent.host().await).await;
    assert_eq!(body.expect("an answer"), "all the time");
    assert_eq!(stage.pebble.accounts(), 1);
}

#[tokio::test]
async fn the_relay_answers_an_authority_only_while_its_order_runs() {
    let stage = stage().await;
    let relay = stage.relay().await;
    // Our own look from outside passes. The authority, who comes behind it, has to wait.
    stage.front.passes(1);
    stage.front.has_seen(2).await;
    let at = relay.public.to_string();
    let asks = ["s_client", "-alpn", "acme-tls/1", "-connect", &at];
    let answer = tool("openssl", &[&asks[..], &["-servername", NAME]].concat()).await;
    assert!(answer.contains("ALPN protocol: acme-tls/1"), "{answer}");
    let shown = CertificateDer::from_pem_slice(answer.as_bytes()).expect("PEM");
    assert_ne!(shown, certificate_shown(Over::H2, relay.api).await);

    stage.front.opens();
    relay.is_certified().await;
    let hello = hello_with(NAME, tls_config(&[ACME_TLS]));
    let said = say(relay.public, &hello).await.expect("an alert");
    assert_eq!(said, NO_APPLICATION_PROTOCOL);
}

#[tokio::test]
async fn a_server_that_starts_again_shows_what_it_has_and_makes_no_account_and_no_order() {
    let (stage, origin) = (stage().await, http("again").await);
    stage.front.opens();
    let mut first = stage.server().await;
    assert!(first.command.contains(&format!("--server {NAME}:")));
    let pin = format!("--server-fingerprint {}", first.key);
    assert!(first.command.contains(&pin), "nobody else knows pebble");
    first.process.logs("self-signed until").await;
    let vouched = format!("an authority vouches for {NAME}");
    first.process.logs(&vouched).await;
    stage.has_made((1, 1, 1)).await;
    let (root, chain) = (
        text(&stage.pebble.issuer_root_file().await),
        text(&stage.chain_file()),
    );
    let verify = ["verify", "-verify_hostname", NAME, "-CAfile", &root];
    let files = ["-untrusted", &chain, &chain];
    tool("openssl", &[&verify[..], &files].concat()).await;
    first.process.signal(Signal::TERM);
    assert_eq!(first.process.exit_code().await, 0);

    let second = stage.server().await;
    for over in [Over::Quic, Over::H2] {
        let shown = certificate_shown(over, second.api).await;
        assert_eq!(shown, stage.kept());
        let client = pair::publish(over, &second, origin.address, &[], folder()).await;
        let body = get(second.visitors(), client.host()).await;
        assert_eq!(body.expect("an answer"), "again");
    }
    second.process.logs(&vouched).await;
    assert!(!second.process.log().contains("self-signed until"));
    stage.has_made((1, 1, 1)).await;
}

/// The flags of a relay that would ask nobody's authority.
fn nobodys(data: &Path) -> [String; 6] {
    let data = text(data);
    let flags = ["--acme-domain", NAME, "--acme-directory"];
    let [domain, name, directory] = flags.map(str::to_owned);
    let url = "https://127.0.0.1:1/dir".to_owned();
    [domain, name, directory, url, "--data-dir".to_owned(), data]
}

#[tokio::test]
async fn files_that_can_not_be_used_are_mistakes_that_name_them_and_are_left_alone() {
    let data = folder();
    let (chain, credentials) = (
        data.path().join(CHAIN_FILE),
        data.path().join("server_acme_creds.json"),
    );
    let (others, _key) = authority().sign(NAME);
    private(&chain, &others);
    private(&credentials, "rubbish");
    let flags = nobodys(data.path());
    let mut server = process::server(&flags.each_ref().map(String::as_str));
    assert_eq!(server.exit_code().await, 2, "{}", server.log());
    for part in [&text(&chain), "another key", &text(&credentials)] {
        server.logs(part).await;
    }
    let read = |path: &Path| fs::read_to_string(path).expect("reads");
    assert_eq!(
        (read(&chain), read(&credentials)),
        (others, "rubbish".to_owned())
    );
}

#[tokio::test]
async fn without_the_port_for_authorities_a_relay_that_is_to_be_certified_does_not_start() {
    let data = folder();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let taken = taken.local_addr().expect("bound");
    let port = taken.port().to_string();
    let flags = nobodys(data.path());
    let flags = flags.iter().map(String::as_str);
    let flags: Vec<&str> = flags.chain(["--alpn-port", &port]).collect();
    let mut server = process::server(&flags);
    assert_eq!(server.exit_code().await, 1, "{}", server.log());
    for part in [&taken.to_string(), "--alpn-port", NAME] {
        server.logs(part).await;
    }
}
