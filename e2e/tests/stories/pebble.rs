//! pebble does what its rules say.

use std::time::Duration;

use e2e::pebble::{Pebble, Rules, pebble};
use e2e::poll::eventually;
use e2e::ports;
use e2e::process::tool;
use e2e::published::text;
use instant_acme::{Identifier, NewOrder};
use serde_json::Value;

use crate::acme_client::account;

async fn directory(pebble: &Pebble) -> Value {
    let trusted = text(pebble.ca_root());
    let flags = ["-sS", "--fail", "--cacert", &trusted, &pebble.directory()];
    serde_json::from_str(&tool("curl", &flags).await).expect("JSON")
}

#[tokio::test]
async fn pebble_serves_its_directory_and_the_root_of_what_it_issues() {
    let alpn = ports::tcp();
    let pebble = pebble(alpn.port, Rules::default()).await;
    let directory = directory(&pebble).await;
    assert_eq!(directory["meta"]["externalAccountRequired"], false);
    let order = directory["newOrder"].as_str().expect("a URL");
    let api = pebble.directory().replace("/dir", "/");
    assert!(order.starts_with(&api), "{order}");

    let root = pebble.issuer_root_file().await;
    let flags = ["x509", "-noout", "-subject", "-in", &text(&root)];
    let subject = tool("openssl", &flags).await;
    assert!(subject.contains("Pebble Root CA"), "{subject}");
}

#[tokio::test]
async fn an_account_and_an_order_at_pebble_are_counted() {
    let pebble = pebble(1, Rules::default()).await;
    let made = || (pebble.accounts(), pebble.orders(), pebble.issued());
    assert_eq!(made(), (0, 0, 0));
    let account = account(pebble.directory(), pebble.ca_root()).await;
    let account = account.expect("an account");
    let identifiers = [Identifier::Dns("a.test".to_owned())];
    let order = account.new_order(&NewOrder::new(&identifiers)).await;
    order.expect("an order");
    eventually("both are counted", || made() == (1, 1, 0)).await;
}

#[tokio::test]
async fn pebble_takes_its_rules() {
    let rules = Rules {
        validity: Duration::from_secs(60),
        nonce_reject: 50,
        va_sleep: Some(Duration::from_secs(2)),
        eab: Some((
            "kid-1".to_owned(),
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajV".to_owned(),
        )),
        strict: false,
        validates_at: ports::ADDRESS,
    };
    let pebble = pebble(1, rules).await;
    let directory = directory(&pebble).await;
    assert_eq!(directory["meta"]["externalAccountRequired"], true);
    pebble
        .logs("certificate validity period of 60 seconds")
        .await;
    pebble.logs("reject 50% of good nonces").await;
    pebble
        .logs("maximum random VA sleep time to 2 seconds")
        .await;
}
