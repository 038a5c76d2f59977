//! What is shown and for how long, and who gets nothing. That a visitor gets it is told in `server`.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt as _;
use tunnel_common::tls;
use tunnel_common::wire::alpn;

use super::*;

fn host() -> Hostname {
    "relay.example".parse().expect("a host name")
}

/// TLS for a challenge at `host`, and the certificate in it.
pub(crate) fn challenge(host: &str) -> (Arc<ServerConfig>, CertificateDer<'static>) {
    let key = tls::generate_key().expect("a key");
    let certified = tls::self_signed(&key, &[host.to_owned()]).expect("a certificate");
    let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
    let builder = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth();
    let config = builder.with_single_cert(certified.cert.clone(), secret.into());
    let mut config = config.expect("a configuration");
    config.alpn_protocols = vec![alpn::ACME_TLS.to_vec()];
    (Arc::new(config), certified.cert[0].clone())
}

#[test]
fn a_challenge_is_shown_at_its_host_until_its_guard_is_dropped() {
    let challenges = OwnChallenges::default();
    let (config, _) = challenge("relay.example");
    assert!(challenges.get(&host()).is_none());
    let shown = challenges.clone().set(host(), config.clone());
    let found = challenges.get(&host()).expect("is shown");
    assert!(Arc::ptr_eq(&found, &config));
    let elsewhere = "other.example".parse().expect("a host name");
    assert!(challenges.get(&elsewhere).is_none());
    drop(shown);
    assert!(challenges.get(&host()).is_none());
}

#[test]
fn a_later_challenge_takes_the_place_of_an_earlier_whose_end_does_not_end_it() {
    let challenges = OwnChallenges::default();
    let (config, _) = challenge("relay.example");
    let (other, _) = challenge("relay.example");
    let earlier = challenges.set(host(), other);
    let later = challenges.set(host(), config.clone());
    drop(earlier);
    let found = challenges.get(&host()).expect("is shown");
    assert!(Arc::ptr_eq(&found, &config));
    drop(later);
    assert!(challenges.get(&host()).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_in_time_is_cut_off() {
    let (near, mut far) = tokio::io::duplex(1024);
    let (config, _) = challenge("relay.example");
    let (begun, patience) = (Instant::now(), Duration::from_secs(10));
    let first = Bytes::from_static(&[22, 3, 1]);
    let timeouts = Timeouts::default();
    answer(first, near, config, begun + patience, &timeouts).await;
    assert_eq!(begun.elapsed(), patience);
    let mut said = vec![];
    far.read_to_end(&mut said).await.expect("is closed");
    assert!(said.is_empty(), "{said:?}");
}
