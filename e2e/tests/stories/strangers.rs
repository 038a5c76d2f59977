//! Which key an agent on another TLS stack than ours has proved, and what of its certificate matters.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::agent::new_key;
use e2e::hello::hello;
use e2e::pair::server;
use e2e::peer::{connect, hello as agents};
use e2e::process::folder;
use e2e::relay::{Relay, relay, relay_with};
use e2e::steady::steady;
use e2e::stranger::{Stranger, stranger};
use e2e::tools::{errors, run, text};
use e2e::transport::Over;
use e2e::visitor::say;
use serde_json::Value;
use tokio::sync::watch;
use tunnel_common::tls::self_signed;
use tunnel_server::admission::{Admission, Applicant, Deciding, Open};

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
// TLS alerts (RFC 8446, 6.2).
const BAD_CERTIFICATE: u64 = 42;
const CERTIFICATE_UNKNOWN: u64 = 46;
const ILLEGAL_PARAMETER: u64 = 47;
const DECRYPT_ERROR: u64 = 51;
const PROTOCOL_VERSION: u64 = 70;
const MISSING_EXTENSION: u64 = 109;
const CERTIFICATE_REQUIRED: u64 = 116;
const NO_APPLICATION_PROTOCOL: u64 = 120;
/// What QUIC says where TLS has no alert for it (RFC 9000, 20.1).
const PROTOCOL_VIOLATION: u64 = 10;

/// An alert as QUIC tells it (RFC 9001, 4.8).
const fn alert(description: u64) -> u64 {
    0x100 + description
}

/// Agents that dial `relay` one after the other, one for each case.
fn provers(relay: &Relay, cases: &[&str]) -> Stranger {
    let api = relay.api.to_string();
    stranger("prover.py", &[&[&api[..]], cases].concat())
}

/// The id that was at stake has no name at this relay.
async fn is_nobody(relay: &Relay, said: &Value) {
    let host = format!("{}.localhost", said["id"].as_str().expect("an id"));
    let answer = say(relay.public, &hello(&host)).await;
    assert_eq!(answer.expect("an alert"), UNRECOGNIZED_NAME, "{said}");
}

/// The relay still takes agents in.
async fn takes_good_agents(relay: &Relay) {
    let peer = connect(Over::Quic, relay.api, &new_key(), 1).await;
    peer.register(agents(1, 0)).await;
}

#[tokio::test]
async fn who_does_not_prove_a_key_that_we_take_is_refused_before_anybody_hears_of_him() {
    let relay = relay().await;
    let bystanders = steady(Over::Quic, &relay).await;
    let refused = [
        ("none", alert(CERTIFICATE_REQUIRED)),
        ("rsa-1024", alert(ILLEGAL_PARAMETER)),
        ("p-384", alert(ILLEGAL_PARAMETER)),
        ("chain-of-100", alert(CERTIFICATE_UNKNOWN)),
        ("60-kb", alert(CERTIFICATE_UNKNOWN)),
        ("200-kb", PROTOCOL_VIOLATION),
        ("copied", alert(DECRYPT_ERROR)),
        ("critical-extension", alert(BAD_CERTIFICATE)),
        ("trailing-garbage", alert(BAD_CERTIFICATE)),
        ("rubbish", alert(BAD_CERTIFICATE)),
        ("empty", alert(BAD_CERTIFICATE)),
        ("other-alpn", alert(NO_APPLICATION_PROTOCOL)),
    ];
    let cases = refused.map(|(case, _)| case);
    let mut provers = provers(&relay, &cases);
    for (case, code) in refused {
        let said = provers.says().await;
        assert_eq!(said["case"], case);
        assert_eq!(said["welcome"], false, "{said}");
        assert_eq!(said["closed_by"], "transport", "{said}");
        assert_eq!(said["code"], code, "{said}");
        is_nobody(&relay, &said).await;
    }
    provers.is_done().await;
    takes_good_agents(&relay).await;
    bystanders.was_not_disturbed().await;
}

/// Lets everybody in, and remembers what they claimed.
#[derive(Debug, Default)]
struct Listener {
    open: Open,
    heard: Mutex<Vec<Applicant>>,
}

impl Admission for Listener {
    fn decide<'a>(&'a self, applicant: &'a Applicant) -> Deciding<'a> {
        let mut heard = self.heard.lock().expect("not poisoned");
        heard.push(applicant.clone());
        self.open.decide(applicant)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.open.changes()
    }
}

#[tokio::test]
async fn nothing_but_the_key_in_a_certificate_says_who_somebody_is() {
    let listener = Arc::new(Listener::default());
    let admission = listener.clone();
    let relay = relay_with(|config| config.admission = admission).await;
    // Agents may have no clock, and nobody signs for them but themselves: neither the dates nor the
    // signature of the envelope means anything.
    let same = [
        "plain",
        "another-certificate",
        "expired",
        "sha1",
        "subject-not-utf8",
        "claim-twice",
        "claim",
    ];
    let mut provers = provers(&relay, &same);
    let mut ids = vec![];
    for case in same {
        let said = provers.says().await;
        assert_eq!(said["case"], case);
        assert_eq!(said["welcome"], true, "{said}");
        let url = said["granted"][0]["urls"][0].as_str().expect("a URL");
        let id = said["id"].as_str().expect("an id").to_owned();
        assert!(url.starts_with(&format!("https://{id}.")), "{said}");
        ids.push(id);
    }
    provers.is_done().await;
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let heard = listener.heard.lock().expect("not poisoned");
    let claims: Vec<_> = heard.iter().map(|a| a.extension.as_deref()).collect();
    // What is said twice is said by nobody.
    assert_eq!(claims[..6], [None; 6]);
    assert_eq!(claims[6], Some(&b"one"[..]));
}

#[tokio::test]
async fn no_ticket_is_given_and_one_that_was_made_up_spares_nobody_the_proof() {
    let relay = relay().await;
    let mut provers = provers(
        &relay,
        &["plain", "forged-ticket-no-certificate", "forged-ticket"],
    );
    let plain = provers.says().await;
    assert_eq!(
        (&plain["welcome"], &plain["tickets"]),
        (&true.into(), &0.into())
    );
    let nameless = provers.says().await;
    assert_eq!(nameless["offered"], true, "early data has left: {nameless}");
    assert_eq!(nameless["code"], alert(CERTIFICATE_REQUIRED), "{nameless}");
    // He comes in by a whole handshake, or not at all.
    let proven = provers.says().await;
    for said in [&nameless, &proven] {
        assert_eq!(
            (&said["resumed"], &said["early"]),
            (&false.into(), &false.into())
        );
        assert_eq!(
            (&said["offered"], &said["tickets"]),
            (&true.into(), &0.into())
        );
    }
    assert_eq!(proven["welcome"], true, "{proven}");
    provers.is_done().await;
}

/// Bad handshakes of each kind that are measured together.
const DIALS: u32 = 40;
/// What one may cost at most, in an unoptimised build and by a clock of 10 ms.
const COST: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_handshake_that_proves_nothing_costs_little_time() {
    let server = server(&[]).await;
    let (api, count) = (server.api.to_string(), DIALS.to_string());
    for case in ["none", "copied", "chain-of-100", "60-kb"] {
        let before = server.process.processor_time();
        let mut provers = stranger("prover.py", &[&api, case, "--count", &count]);
        assert_eq!(provers.says().await["refused"], DIALS);
        let each = (server.process.processor_time() - before) / DIALS;
        println!("{case}: {each:?} of processor time for each refusal");
        assert!(each <= COST, "{case}: {each:?}");
    }
}

/// What `openssl s_client` says that dials this port over TCP.
async fn openssl(port: SocketAddr, flags: &[&str]) -> String {
    let port = port.to_string();
    // It would leave at the end of its input, before the relay has judged it.
    let always = ["s_client", "-connect", &port, "-noservername", "-ign_eof"];
    let output = run("openssl", &[&always[..], flags].concat()).await;
    text(&output) + &errors(&output)
}

const OURS: [&str; 2] = ["-alpn", "qtun-h2/1"];

#[tokio::test]
async fn over_tcp_openssl_learns_what_an_agent_must_bring() {
    let relay = relay().await;
    let http2 = ["-alpn", "h2"];
    let refused = [
        (relay.api, "-tls1_2", OURS, PROTOCOL_VERSION),
        (relay.api, "-tls1_3", OURS, CERTIFICATE_REQUIRED),
        (relay.api, "-tls1_3", http2, NO_APPLICATION_PROTOCOL),
        (relay.public, "-tls1_2", OURS, PROTOCOL_VERSION),
        (relay.public, "-tls1_3", OURS, CERTIFICATE_REQUIRED),
        // No agent, so a visitor, and he must name somebody.
        (relay.public, "-tls1_3", http2, MISSING_EXTENSION),
    ];
    for (port, version, protocol, alert) in refused {
        let said = openssl(port, &[&[version][..], &protocol].concat()).await;
        let alert = format!("SSL alert number {alert}");
        assert!(said.contains(&alert), "{alert}: {said}");
    }
    takes_good_agents(&relay).await;
}

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &str = "PRI * HTTP/2.0";

#[tokio::test]
async fn over_tcp_http2_begins_only_with_who_names_the_protocol_and_proves_a_key() {
    let relay = relay_with(|config| config.timeouts.hello = Duration::from_millis(200)).await;
    let (folder, key) = (folder(), new_key());
    let certified = self_signed(&key, &[]).expect("a certificate");
    let path = |name| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (key_file, certificate_file) = (path("key"), path("certificate"));
    std::fs::write(&key_file, key.serialize_pem()).expect("writes");
    std::fs::write(&certificate_file, &certified.cert[0]).expect("writes");
    let proved = ["-tls1_3", "-key", &key_file, "-certform", "DER"];
    let proved = [&proved[..], &["-cert", &certificate_file]].concat();
    for port in [relay.api, relay.public] {
        let said = openssl(port, &[&proved[..], &OURS].concat()).await;
        assert!(said.contains("ALPN protocol: qtun-h2/1"), "{said}");
        assert!(said.contains(PREFACE), "{said}");
    }
    let said = openssl(relay.api, &proved).await;
    assert!(said.contains("No ALPN negotiated"), "{said}");
    assert!(!said.contains(PREFACE), "{said}");
}
