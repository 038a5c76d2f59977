//! Certificates and what is on the disk: processes that are killed in the middle of an order, files that are of
//! no use, and certificates that the user has brought.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{self, new_key, same_key, start};
use e2e::authority::{Authority, private};
use e2e::origin::http;
use e2e::pair::{Server, server};
use e2e::pebble::{Pebble, Rules, pebble};
use e2e::poll::{eventually, until_ok};
use e2e::process::{self, Process, folder};
use e2e::published::text;
use e2e::relay::relay;
use e2e::transport::Over;
use e2e::visitor::{certificate, get_on, visit};
use rcgen::PKCS_ED25519;
use rstest::rstest;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::process::Command;
use tunnel_client::config::Certificates;
use tunnel_common::clock::Clock;
use tunnel_common::pem_pair::PemPair;

const VOUCHED: &str = "an authority vouches for";

/// A relay and an authority as processes; `client` is started and killed by the story.
struct Town {
    server: Server,
    pebble: Pebble,
    origin: e2e::origin::Origin,
    folder: Arc<TempDir>,
}

impl Town {
    async fn new(rules: Rules) -> Self {
        // Names under `localhost` lead here without a resolver.
        let server = server(&["--domain-suffix", "tunnel.localhost", "--open"]).await;
        let alpn = server.public[1].port();
        Self {
            server,
            pebble: pebble(alpn, rules).await,
            origin: http("hello").await,
            folder: folder(),
        }
    }

    fn client(&self, flags: &[&str]) -> Process {
        let (api, local) = (self.server.api.to_string(), self.origin.address.to_string());
        let (directory, root) = (self.pebble.directory(), text(self.pebble.ca_root()));
        let port = self.server.public[1].port().to_string();
        let mut all = vec!["--server", &api, "--server-fingerprint", &self.server.key];
        all.extend(["--local", &local, "--acme-email", "owner@example.com"]);
        all.extend(["--acme-directory", &directory, "--acme-ca-root", &root]);
        all.extend(["--acme-validation-port", &port]);
        all.extend(flags);
        process::client(&all, self.folder.clone())
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test]
async fn a_client_that_is_killed_at_any_moment_of_its_order_has_one_account_and_gets_its_certificate()
 {
    let town = Town::new(Rules {
        va_sleep: Some(Duration::from_secs(3)),
        ..Rules::default()
    });
    let town = town.await;
    let killed = async |when: &str, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        let mut client = town.client(&[]);
        eventually(when, &mut is_so).await;
        client.signal(Signal::KILL);
        client.ends().await;
    };
    let credentials = town.file("acme_credentials.json");
    killed("its key is on the disk", Box::new(|| credentials.exists())).await;
    killed(
        "it has an account",
        Box::new(|| town.pebble.accounts() == 1),
    )
    .await;
    let before = town.pebble.orders();
    killed("it has ordered", Box::new(|| town.pebble.orders() > before)).await;
    let client = town.client(&[]);
    client.logs(VOUCHED).await;
    assert_eq!(town.pebble.accounts(), 1);
    assert!(town.file("acme_cert.pem").exists());
}

#[tokio::test]
async fn who_has_a_certificate_shows_it_at_once_after_kill_9_and_orders_no_other() {
    let town = Town::new(Rules::default()).await;
    let mut client = town.client(&[]);
    client.logs(VOUCHED).await;
    client.logs("CAA 0 issue").await;
    client.signal(Signal::KILL);
    client.ends().await;
    let again = town.client(&[]);
    again.logs(VOUCHED).await;
    assert_eq!((town.pebble.accounts(), town.pebble.orders()), (1, 1));
}

#[rstest]
#[case::of_another_key("another key")]
#[case::broken("can not be read")]
#[tokio::test]
async fn a_certificate_file_that_is_of_no_use_is_named_and_left_alone(#[case] says: &str) {
    let town = Town::new(Rules::default()).await;
    let foreign = match says {
        "another key" => Authority::new("somebody").sign("x.tunnel.localhost").0,
        _ => "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
    };
    fs::write(town.file("acme_cert.pem"), &foreign).expect("writes");
    let mut client = town.client(&[]);
    assert_eq!(client.exit_code().await, 2);
    let log = client.log();
    assert!(
        log.contains("--cert-pem") && log.contains("acme_cert.pem") && log.contains(says),
        "{log}"
    );
    let kept = fs::read_to_string(town.file("acme_cert.pem")).expect("reads");
    assert_eq!(kept, foreign);
    assert_eq!(town.pebble.accounts(), 0);
}

#[tokio::test]
async fn an_ed25519_identity_is_told_that_it_needs_another_key_and_gets_one() {
    let town = Town::new(Rules::default()).await;
    let key = rcgen::KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    private(&town.file("client.key"), &key.serialize_pem());
    let mut client = town.client(&[]);
    assert_eq!(client.exit_code().await, 2);
    assert!(client.log().contains("--cert-key"), "{}", client.log());
    let client = town.client(&["--cert-key", "visitors.key"]);
    client.logs(VOUCHED).await;
    assert!(town.file("visitors.key").exists());
    let log = client.log();
    assert!(log.contains("it is for the certificate, keep it"), "{log}");
}

#[tokio::test]
async fn the_demo_with_an_authority_prints_a_curl_line_that_answers() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-acme");
    let mut command = Command::new(script);
    command.arg("--check");
    command.env("SERVER", process::binary("server"));
    command.env("CLIENT", process::binary("client"));
    // Nobody is there: who went by it would get nowhere.
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        for name in [name.to_owned(), name.to_uppercase()] {
            command.env(name, "http://127.0.0.1:1");
        }
    }
    let mut demo = process::spawn(command, folder());
    let said = demo.rest().await.join("\n");
    assert_eq!(demo.exit_code().await, 0, "{said} {}", demo.log());
    assert!(
        said.contains("curl --noproxy '*' --cacert") && said.contains("it answers 200"),
        "{said}"
    );
}

/// A chain and its key from an authority, in files.
fn bring(authority: &Authority, folder: &Path) -> PemPair {
    let (chain, key) = authority.sign("web.example");
    let pair = PemPair {
        chain: folder.join("chain.pem"),
        key: folder.join("key.pem"),
    };
    private(&pair.key, &key);
    private(&pair.chain, &chain);
    pair
}

fn in_file(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("PEM")
}

#[rstest]
#[tokio::test]
async fn a_certificate_that_the_user_brought_is_shown_and_replaced_under_load(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin, folder) = (relay().await, http("hello").await, folder());
    let authority = Authority::new("the user's own");
    let files = bring(&authority, folder.path());
    let first = files.load(&Clock::system()).expect("fits");
    let mut config = agent::config(over, &relay, same_key(&new_key()), origin.address);
    config.certificates = Certificates::Brought {
        files: files.clone(),
        first,
    };
    let agent = start(config);
    let host = agent.host().await;
    let mut stays = visit(relay.public, &host).await.expect("visits");
    let before = in_file(&files.chain);
    assert_eq!(certificate(&stays), before);

    bring(&authority, folder.path());
    let after = in_file(&files.chain);
    assert_ne!(before, after);
    until_ok("the new one is shown", async || {
        // Those who come meanwhile are served as well.
        let mut visitor = visit(relay.public, &host).await.expect("visits");
        assert_eq!(
            get_on(&mut visitor, &host).await.expect("is served"),
            "hello"
        );
        match certificate(&visitor) == after {
            true => Ok(()),
            false => Err("the first"),
        }
    })
    .await;
    assert_eq!(get_on(&mut stays, &host).await.expect("goes on"), "hello");
}
