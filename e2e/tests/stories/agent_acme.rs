//! An agent gets certificates that browsers trust: the real pebble is the authority.

use e2e::agent::{config, new_key, same_key, start};
use e2e::certified::{curl, is_certified, issued, orders, validated_relay};
use e2e::origin::http;
use e2e::pebble::{Rules, pebble};
use e2e::poll::eventually;
use e2e::process::folder;
use e2e::transport::Over;
use e2e::visitor::{certificate, visit};
use rstest::rstest;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key;

#[rstest]
#[tokio::test]
async fn curl_trusts_an_agent_that_an_authority_vouches_for_and_sees_its_own_key(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin, folder) = (validated_relay().await, http("hello").await, folder());
    let pebble = pebble(relay.alpn.expect("is bound").port(), Rules::default()).await;
    let key = new_key();
    let mut config = config(over, &relay, same_key(&key), origin.address);
    orders(&mut config, issued(&pebble, &relay, folder.path()));
    let agent = start(config);
    agent
        .certificate("an authority vouches", is_certified)
        .await;
    let host = agent.host().await;
    let roots = pebble.issuer_root_file().await;
    assert_eq!(curl(&relay, &host, &roots).await, "hello");
    let visitor = visit(relay.public, &host).await.expect("visits");
    let shown = KeyFingerprint::of_certificate(&certificate(&visitor)).expect("a key");
    assert_eq!(shown, key::fingerprint(&key));
    eventually("one order", || pebble.orders() == 1).await;
    assert_eq!((pebble.accounts(), pebble.issued()), (1, 1));
}
