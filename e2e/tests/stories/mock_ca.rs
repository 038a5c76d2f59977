//! The small ACME server does what its rules say, to a client that was not made for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::agent::new_key;
use e2e::mock_ca::{Ari, MockCa, RateLimit, RetryAfter, mock_ca, mock_ca_at};
use e2e::process::{folder, tool};
use e2e::published::text;
use instant_acme::{
    Account, CertificateIdentifier, Error, Identifier, Key, NewOrder, Order, OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tunnel_common::clock::Clock;

use crate::acme_client::{self, CONTACT, prove, soon};

const HOUR: Duration = Duration::from_secs(3600);
/// The begin of 2030, long after today.
const THEN: Duration = Duration::from_secs(1_893_456_000);

async fn account(ca: &MockCa) -> Result<Account, Error> {
    acme_client::account(ca.directory(), ca.ca_root()).await
}

fn hosts<const N: usize>(names: [&str; N]) -> [Identifier; N] {
    names.map(|name| Identifier::Dns(name.to_owned()))
}

/// Proves all, and takes the certificate for `key`.
async fn certificate(order: &mut Order, names: &[&str], key: &KeyPair) -> String {
    let proved = prove(order).await.expect("an outcome");
    assert_eq!(proved, OrderStatus::Ready);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(key).expect("a CSR");
    order.finalize_csr(csr.der()).await.expect("it is taken");
    let chain = order.poll_certificate(&soon()).await;
    chain.expect("a certificate")
}

fn problem<T>(refused: Result<T, Error>) -> Problem {
    match refused {
        Err(Error::Api(problem)) => problem,
        Err(other) => panic!("no answer: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().expect("a type");
    kind.trim_start_matches("urn:ietf:params:acme:error:")
}

#[tokio::test]
async fn an_order_ends_in_a_chain_with_the_dates_of_its_clock() {
    let ca = mock_ca_at(Clock::from_fn(|| UNIX_EPOCH + THEN)).await;
    ca.rules(|rules| rules.lifetime = 6 * 24 * HOUR);
    let account = account(&ca).await.expect("an account");
    let (names, key) = (["a.test", "b.test"], new_key());
    let identifiers = hosts(names);
    let new = NewOrder::new(&identifiers).profile("shortlived");
    let mut order = account.new_order(&new).await.expect("an order");
    let chain = certificate(&mut order, &names, &key).await;

    let folder = folder();
    let [root, leaf] = ["root.pem", "leaf.pem"].map(|name| folder.path().join(name));
    std::fs::write(&root, ca.root_pem()).expect("writes");
    std::fs::write(&leaf, &chain).expect("writes");
    let ([root, leaf], then) = ([text(&root), text(&leaf)], THEN.as_secs().to_string());
    let verify = ["verify", "-attime", &then, "-verify_hostname", "b.test"];
    tool(
        "openssl",
        &[&verify[..], &["-CAfile", &root, &leaf]].concat(),
    )
    .await;
    let dates = ["x509", "-noout", "-dates", "-in", &leaf];
    let dates = tool("openssl", &dates).await;
    let meant = "notBefore=Jan  1 00:00:00 2030 GMT\nnotAfter=Jan  7 00:00:00 2030 GMT\n";
    assert_eq!(dates, meant);
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);

    let seen = ca.orders().remove(0);
    assert_eq!(
        (seen.hosts, seen.at),
        (names.map(str::to_owned).to_vec(), UNIX_EPOCH + THEN)
    );
    assert_eq!(
        (seen.profile.as_deref(), seen.replaces),
        (Some("shortlived"), None)
    );
    let csr = ca.csrs().remove(0);
    assert_eq!(
        (csr.subject_is_empty, csr.spki),
        (true, key.subject_public_key_info())
    );
    assert_eq!(ca.contacts(), [[CONTACT]]);
}

#[tokio::test]
async fn it_has_the_profiles_of_its_rules_and_no_others() {
    let ca = mock_ca().await;
    ca.rules(|rules| rules.profiles = vec!["tlsserver"]);
    let account = account(&ca).await.expect("an account");
    let told: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
    assert_eq!(told, ["tlsserver"]);
    let identifiers = hosts(["a.test"]);
    let new = NewOrder::new(&identifiers).profile("shortlived");
    let refused = problem(account.new_order(&new).await);
    assert_eq!(kind(&refused), "invalidProfile");
    assert_eq!(ca.orders(), []);
}

#[tokio::test]
async fn it_tells_when_to_renew_what_it_issued_and_takes_the_order_for_it() {
    let ca = mock_ca().await;
    let [start, end] = [THEN, THEN + HOUR].map(|time| UNIX_EPOCH + time);
    let ari = Ari {
        start,
        end,
        retry_after: 6 * HOUR,
    };
    ca.rules(|rules| rules.ari = Some(ari));
    let account = account(&ca).await.expect("an account");
    let identifiers = hosts(["a.test"]);
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await;
    let order = order.as_mut().expect("an order");
    let chain = certificate(order, &["a.test"], &new_key()).await;
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM");
    let id = CertificateIdentifier::try_from(&leaf).expect("an id");

    let (info, again) = account
        .renewal_info(&id)
        .await
        .expect("renewal information");
    let window = info.suggested_window;
    assert_eq!(
        [window.start, window.end].map(SystemTime::from),
        [start, end]
    );
    assert!((5 * HOUR..=6 * HOUR).contains(&again), "{again:?}");

    let text = id.to_string();
    let unknown = CertificateIdentifier::new((&b"other"[..]).into(), (&b"one"[..]).into());
    assert!(account.renewal_info(&unknown).await.is_err());
    let new = NewOrder::new(&identifiers).replaces(id);
    account.new_order(&new).await.expect("it is echoed");
    assert_eq!(ca.orders()[1].replaces.as_ref(), Some(&text));
}

#[tokio::test]
async fn it_refuses_orders_as_long_as_the_story_wants() {
    let ca = mock_ca().await;
    let account = account(&ca).await.expect("an account");
    let limit = RateLimit {
        retry_after: RetryAfter::In(HOUR),
        detail: "too many".to_owned(),
    };
    ca.rules(|rules| rules.refuse_orders = Some(limit));
    let identifiers = hosts(["a.test"]);
    let new = NewOrder::new(&identifiers);
    let refused = problem(account.new_order(&new).await);
    assert_eq!(kind(&refused), "rateLimited");
    assert_eq!(refused.detail.as_deref(), Some("too many"));
    let seen = ca.requests().pop().expect("a request");
    assert_eq!((seen.line.as_str(), seen.status), ("POST /new-order", 429));

    ca.rules(|rules| rules.refuse_orders = None);
    account.new_order(&new).await.expect("an order");
    assert_eq!(ca.orders().len(), 1);
}

#[tokio::test]
async fn a_lost_challenge_ends_its_order() {
    let ca = mock_ca().await;
    ca.rules(|rules| rules.fail_validation = true);
    let account = account(&ca).await.expect("an account");
    let identifiers = hosts(["a.test"]);
    let order = account.new_order(&NewOrder::new(&identifiers)).await;
    let mut order = order.expect("an order");
    let error = problem(prove(&mut order).await);
    assert_eq!(kind(&error), "unauthorized");
    assert_eq!(order.state().status, OrderStatus::Invalid);
    assert_eq!(ca.csrs(), []);
}

#[tokio::test]
async fn with_no_good_nonce_nobody_gets_an_account() {
    let ca = mock_ca().await;
    ca.rules(|rules| rules.bad_nonces = 100);
    let refused = problem(account(&ca).await);
    assert_eq!(kind(&refused), "badNonce");
    assert_eq!(ca.accounts(), 0);
}

#[tokio::test]
async fn one_key_has_one_account() {
    let ca = mock_ca().await;
    let (_, pkcs8) = Key::generate_pkcs8().expect("a key");
    let key = || {
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.secret_pkcs8_der().to_vec());
        let key = Key::from_pkcs8_der(pkcs8.clone_key()).expect("a key");
        (key, pkcs8.into())
    };
    let builder = || acme_client::builder(ca.ca_root());
    let none = problem(builder().from_key(key(), ca.directory()).await);
    assert_eq!(kind(&none), "accountDoesNotExist");
    let made = builder().create_from_key(key(), ca.directory()).await;
    let found = builder().from_key(key(), ca.directory()).await;
    let again = builder().create_from_key(key(), ca.directory()).await;
    let ids = [made, found, again].map(|each| each.expect("an account").0.id().to_owned());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(ca.accounts(), 1);
}
