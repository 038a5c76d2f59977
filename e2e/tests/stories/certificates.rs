//! Certificates that are replaced while the programs run.

use std::net::SocketAddr;
use std::sync::Arc;

use e2e::agent::{config, new_key, publish as publish_pinned, start};
use e2e::authority::{Authority, private};
use e2e::origin::http;
use e2e::pair::{self, publish, server};
use e2e::peer::{self, connect, quic};
use e2e::poll::eventually;
use e2e::process::{self, folder};
use e2e::relay::{Relay, relay_with};
use e2e::stage::{drain_to_end, local, pour, sip};
use e2e::transport::Over;
use e2e::visitor::{certificate, get, key_in, tls_config, visit, visit_with};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rstest::rstest;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tunnel_client::config::{Config, RelayConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_common::cert_store::CertStore;
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key::fingerprint;
use tunnel_common::pem_pair::PemPair;
use tunnel_common::tls;
use tunnel_common::wire::alpn;

/// The name in the relay's certificates.
const NAME: &str = "localhost";
/// What is downloaded before the certificate is replaced, and once more behind it.
const HALF: usize = 1 << 20;

/// A relay whose certificate is in files, and the authority that has signed it.
struct Vouched {
    relay: Relay,
    authority: Authority,
    shown: CertStore,
    files: PemPair,
    _folder: Arc<TempDir>,
}

impl Vouched {
    /// Starts the relay, with a certificate for this key.
    async fn starts(key: &KeyPair) -> Self {
        let (authority, folder) = (Authority::new("ours"), folder());
        let files = PemPair {
            chain: folder.path().join("relay.pem"),
            key: folder.path().join("tls.key"),
        };
        private(&files.chain, &authority.sign_key(NAME, key));
        private(&files.key, &key.serialize_pem());
        let first = files.load(&Clock::system()).expect("loads");
        let shown = CertStore::new(first);
        let relay = relay_with(|config| {
            config.identity = shown.clone();
            config.certificate_files = Some(files.clone());
        });
        Self {
            relay: relay.await,
            authority,
            shown,
            files,
            _folder: folder,
        }
    }

    /// Puts a new certificate for this key in place of the one that is there, and waits until it is in use.
    async fn is_renewed(&self, key: &KeyPair) {
        let before = self.shown.default_certificate();
        private(&self.files.chain, &self.authority.sign_key(NAME, key));
        private(&self.files.key, &key.serialize_pem());
        let is_new = || self.shown.default_certificate().cert != before.cert;
        eventually("the new certificate is in use", is_new).await;
    }

    /// An agent that takes every relay which the authority vouches for.
    fn agent(&self, over: Over, origin: SocketAddr) -> Config {
        let mut config = config(over, &self.relay, new_key(), origin);
        let address = format!("{NAME}:{}", self.relay.api.port());
        config.relays = vec![RelayConfig {
            trust: RelayTrust::PrivateCa(vec![self.authority.der()]),
            ..RelayConfig::new(address.parse().expect("an address"))
        }];
        config
    }
}

/// The key that the next one is shown who comes to the API port.
async fn shown(over: Over, relay: &Relay) -> KeyFingerprint {
    key_in(&certificate_shown(over, relay.api).await)
}

/// The certificate that the next one is shown who comes to the API port at `api`.
pub(crate) async fn certificate_shown(over: Over, api: SocketAddr) -> CertificateDer<'static> {
    match over {
        Over::Quic => {
            let own = tls::self_signed(&new_key(), &[]).expect("signs");
            let dialled = quic::dial(api, Some(own), 1).await;
            let (_endpoint, connection) = dialled.expect("a handshake");
            let chain = connection.peer_identity().expect("a certificate");
            let chain = chain.downcast::<Vec<CertificateDer<'static>>>();
            chain.expect("a chain")[0].clone()
        }
        Over::H2 => {
            let stranger = visit_with(api, NAME, tls_config(&[alpn::H2]));
            certificate(&stranger.await.expect("a handshake"))
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_tunnel_and_a_download_go_on_while_the_relays_certificate_is_replaced(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (old, new) = (new_key(), new_key());
    let vouched = Vouched::starts(&old).await;
    let mut local = local().await;
    let agent = start(vouched.agent(over, local.address));
    let host = agent.host().await;
    let mut status = agent.status();
    status.mark_unchanged();
    let visitor = visit(vouched.relay.public, &host).await;
    let (mut visitor, mut service) = (visitor.expect("visits"), local.accepts().await);
    pour(&mut visitor, 100).await.expect("asks");
    sip(&mut service, 100).await;
    let (poured, ()) = tokio::join!(pour(&mut service, HALF), sip(&mut visitor, HALF));
    poured.expect("answers");
    assert_eq!(shown(over, &vouched.relay).await, fingerprint(&old));

    vouched.is_renewed(&new).await;

    assert_eq!(shown(over, &vouched.relay).await, fingerprint(&new));
    let rest = async {
        pour(&mut service, HALF).await.expect("goes on");
        service.shutdown().await.expect("ends");
    };
    let ((), downloaded) = tokio::join!(rest, drain_to_end(&mut visitor));
    assert_eq!(downloaded, HALF);
    assert!(
        !status.has_changed().expect("it runs"),
        "it kept its tunnel"
    );
    let next = start(vouched.agent(over, local.address));
    next.serves().await;
}

#[rstest]
#[tokio::test]
async fn who_comes_behind_the_change_is_told_the_new_key(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (old, new) = (new_key(), new_key());
    let vouched = Vouched::starts(&old).await;
    let told = async || {
        let peer = connect(over, vouched.relay.api, &new_key(), 1).await;
        let (_control, welcome) = peer.register(peer::hello(1, 0)).await;
        welcome.relay_id
    };
    assert_eq!(told().await, fingerprint(&old).to_string());
    vouched.is_renewed(&new).await;
    assert_eq!(told().await, fingerprint(&new).to_string());
}

#[rstest]
#[tokio::test]
async fn a_certificate_that_is_renewed_for_the_same_key_is_known_by_its_pin(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let key = new_key();
    let vouched = Vouched::starts(&key).await;
    let origin = http("as before").await;
    let early = publish_pinned(over, &vouched.relay, origin.address).await;
    vouched.is_renewed(&key).await;
    let late = publish_pinned(over, &vouched.relay, origin.address).await;
    for agent in [early, late] {
        let body = get(vouched.relay.public, &agent.host().await).await;
        assert_eq!(body.expect("an answer"), "as before");
    }
}

#[rstest]
#[tokio::test]
async fn half_a_new_pair_changes_nothing_is_told_once_and_passes_when_the_key_is_there(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (authority, files) = (Authority::new("ours"), folder());
    let path = |name: &str| files.path().join(name);
    let (chain, key) = authority.sign(NAME);
    let chain = private(&path("relay.pem"), &chain);
    let key = private(&path("tls.key"), &key);
    let mut server = server(&["--tls-cert", &chain, "--tls-key", &key]).await;
    let origin = http("all the time").await;
    let early = publish(over, &server, origin.address, &[], folder()).await;

    let (new_chain, new_key) = authority.sign(NAME);
    private(chain.as_ref(), &new_chain);
    server.process.logs("the one before goes on serving").await;
    publish(over, &server, origin.address, &[], folder()).await;

    private(key.as_ref(), &new_key);
    server.process.logs("a new certificate is shown").await;
    server.key = pair::fingerprint(key.as_ref()).to_string();
    server.process.logs(&server.key).await;
    let late = publish(over, &server, origin.address, &[], folder()).await;
    for client in [&early, &late] {
        let body = get(server.visitors(), client.host()).await;
        assert_eq!(body.expect("an answer"), "all the time");
    }
    let log = server.process.log();
    let tells = |line: &&str| line.contains("WARN") && line.contains("goes on serving");
    let told: Vec<&str> = log.lines().filter(tells).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&chain) && told[0].contains(&key),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_a_mistake_that_names_the_file_and_the_date() {
    let (key, files) = (new_key(), folder());
    let mut params = CertificateParams::new([NAME.to_owned()]).expect("a name");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 2, 29);
    let expired = params.self_signed(&key).expect("signs");
    let chain = private(&files.path().join("relay.pem"), &expired.pem());
    let key = private(&files.path().join("tls.key"), &key.serialize_pem());
    let mut server = process::server(&["--tls-cert", &chain, "--tls-key", &key]);
    assert_eq!(server.exit_code().await, 2, "{}", server.log());
    server.logs(&chain).await;
    server.logs("2020-02-29T00:00:00Z").await;
}
