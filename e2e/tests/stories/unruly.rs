//! What an agent may do with a connection that it was welcome on, told by agents on other stacks than
//! ours: it is closed with a code or bounded, and nobody else notices.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::arrival::knock;
use e2e::hello::hello;
use e2e::pair::server;
use e2e::poll::{soon, until_ok};
use e2e::relay::{Relay, relay_with};
use e2e::steady::{Steady, steady, steady_at};
use e2e::stranger::{Stranger, stranger};
use e2e::transport::Over;
use e2e::visitor::say;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tunnel_server::admission::{Admission, Applicant, Deciding, Verdict};

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
// Codes of QUIC itself (RFC 9000, 20.1).
const FLOW_CONTROL_ERROR: u64 = 3;
const STREAM_LIMIT_ERROR: u64 = 4;
const STREAM_STATE_ERROR: u64 = 5;
const FRAME_ENCODING_ERROR: u64 = 7;
const CONNECTION_ID_LIMIT_ERROR: u64 = 9;
const PROTOCOL_VIOLATION: u64 = 10;
const CRYPTO_BUFFER_EXCEEDED: u64 = 13;
// Codes of ours.
const ENDED: u64 = 0;
const LIMIT: u64 = 4;
const POLICY: u64 = 6;
const PROTOCOL: u64 = 9;
/// A deadline of the relay's that a story waits for.
const SHORT: Duration = Duration::from_millis(500);
/// What agents that flood may make a relay keep: windows and buffers, and what an unoptimised
/// process takes on its first visits. The floods have far more.
const MEMORY: u64 = 32 * 1024 * 1024;

/// A relay that does not wait long, and bystanders there.
async fn stage() -> (Relay, Steady) {
    let relay = relay_with(|config| {
        config.timeouts.hello = SHORT;
        config.timeouts.control_write = SHORT;
        config.timeouts.splice.first_answer = Some(SHORT);
    });
    let relay = relay.await;
    let bystanders = steady(Over::Quic, &relay).await;
    (relay, bystanders)
}

/// Agents without manners, one after the other.
fn rude(relay: &Relay, arguments: &[&str]) -> Stranger {
    let api = relay.api.to_string();
    stranger("rude.py", &[&[&api[..]], arguments].concat())
}

fn host(said: &Value) -> String {
    format!("{}.localhost", said["id"].as_str().expect("an id"))
}

/// The relay has no agent of that name any more.
async fn is_gone(relay: &Relay, said: &Value) {
    until_ok("its name is gone", async || {
        match say(relay.public, &hello(&host(said))).await {
            Ok(answer) if answer == UNRECOGNIZED_NAME => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// Each case must end with its connection closed by this one with this code, and nobody disturbed.
async fn are_closed(cases: &[(&str, &str, u64)]) {
    let (relay, bystanders) = stage().await;
    let names: Vec<_> = cases.iter().map(|(case, ..)| *case).collect();
    let mut rude = rude(&relay, &names);
    for (case, by, code) in cases {
        let said = rude.says().await;
        assert_eq!(said["case"], *case);
        assert_eq!(said["closed_by"], *by, "{said}");
        assert_eq!(said["code"], *code, "{said}");
        is_gone(&relay, &said).await;
    }
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

#[tokio::test]
async fn an_agent_that_breaks_the_rules_of_quic_is_closed_with_the_code_for_it() {
    are_closed(&[
        ("streams", "transport", STREAM_LIMIT_ERROR),
        ("uni-streams", "transport", STREAM_LIMIT_ERROR),
        ("relays-stream", "transport", STREAM_STATE_ERROR),
        ("stream-never-opened", "transport", STREAM_STATE_ERROR),
        ("beyond-credit", "transport", FLOW_CONTROL_ERROR),
        ("datagrams", "transport", PROTOCOL_VIOLATION),
        ("handshake-done", "transport", PROTOCOL_VIOLATION),
        ("new-token", "transport", PROTOCOL_VIOLATION),
        ("ack-of-nothing", "transport", PROTOCOL_VIOLATION),
        ("crypto-garbage", "transport", PROTOCOL_VIOLATION),
        ("crypto-far", "transport", CRYPTO_BUFFER_EXCEEDED),
        ("new-ids", "transport", CONNECTION_ID_LIMIT_ERROR),
        ("unknown-frames", "transport", FRAME_ENCODING_ERROR),
        ("too-many-streams", "transport", FRAME_ENCODING_ERROR),
        ("cut-frame", "transport", FRAME_ENCODING_ERROR),
    ])
    .await;
}

#[tokio::test]
async fn an_agent_that_breaks_its_control_stream_is_closed_by_the_relay() {
    are_closed(&[
        ("giant-frame", "agent", PROTOCOL),
        ("half-frame", "agent", PROTOCOL),
        ("reset-control", "agent", ENDED),
        ("stop-control", "agent", ENDED),
    ])
    .await;
}

#[tokio::test]
async fn an_agent_that_asks_and_does_not_read_is_closed_at_the_deadline() {
    let (relay, bystanders) = stage().await;
    let mut rude = rude(&relay, &["unread-pings"]);
    assert!(rude.says().await["id"].is_string(), "it reads no more");
    let said = rude.says().await;
    assert_eq!(said["closed_by"], "agent", "{said}");
    assert_eq!(said["code"], PROTOCOL, "{said}");
    is_gone(&relay, &said).await;
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

#[tokio::test]
async fn an_agent_that_only_wastes_its_own_connection_keeps_it() {
    let (relay, bystanders) = stage().await;
    let kept = [
        "streams-politely",
        "uni-streams-politely",
        "pings",
        "path-challenges",
        "unknown-control",
        "wishes",
    ];
    let mut rude = rude(&relay, &kept);
    for case in kept {
        let said = rude.says().await;
        assert_eq!(said["case"], case);
        assert_eq!(said["alive"], true, "{said}");
        assert_eq!(said["closed_by"], Value::Null, "{said}");
    }
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

#[tokio::test]
async fn whatever_an_agent_claims_it_does_not_get_the_name_of_another() {
    let (relay, bystanders) = stage().await;
    let mut rude = rude(&relay, &["others-name", "--host", &bystanders.host]);
    let said = rude.says().await;
    let answers = said["granted"].as_array().expect("answers");
    assert_eq!(answers.len(), 4);
    for granted in answers {
        assert_eq!(granted[0]["refused"]["code"], POLICY, "{said}");
    }
    assert_eq!(said["alive"], true, "{said}");
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

#[tokio::test]
async fn a_second_key_is_granted_to_who_proves_it_on_this_connection_and_to_nobody_else() {
    let (relay, bystanders) = stage().await;
    let mut rude = rude(&relay, &["proofs"]);
    let bad = [
        "by another key",
        "of another connection",
        "of no connection",
        "rubbish",
        "random",
        "empty",
        "giant",
    ];
    for kind in bad {
        let said = rude.says().await;
        assert_eq!(said["kind"], kind);
        let granted = &said["granted"];
        assert!(granted[0]["urls"].is_array(), "the first key's: {said}");
        assert_eq!(granted[1]["refused"]["code"], PROTOCOL, "{said}");
    }
    let said = rude.says().await;
    assert_eq!(said["kind"], "good");
    let url = said["granted"][1]["urls"][0].as_str().expect("a URL");
    let second = said["second"].as_str().expect("an id");
    assert!(url.starts_with(&format!("https://{second}.")), "{said}");
    assert_eq!(rude.says().await["alive"], true);
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

/// A visitor of the agent that says its id next.
async fn visitor(relay: &Relay, rude: &mut Stranger) -> TcpStream {
    let said = rude.says().await;
    let visitor = knock(relay.public, &hello(&host(&said))).await;
    visitor.expect("connects")
}

/// All that a visitor gets, or how he is cut off.
async fn end_of(mut visitor: TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    let reading = soon("the visit ends", visitor.read_to_end(&mut bytes)).await;
    reading.map(|_| bytes).map_err(|error| error.kind())
}

#[tokio::test]
async fn a_visitor_of_an_agent_that_does_not_serve_him_is_cut_off_and_the_agent_stays() {
    let (relay, bystanders) = stage().await;
    let mut rude = rude(&relay, &["mute", "resets"]);
    for case in ["mute", "resets"] {
        let visitor = visitor(&relay, &mut rude).await;
        let ended = end_of(visitor).await;
        assert_eq!(ended, Err(ErrorKind::ConnectionReset), "{case}");
        let said = rude.says().await;
        assert_eq!(said["case"], case);
        assert_eq!(said["alive"], true, "{said}");
        if case == "mute" {
            assert_eq!(said["visit"], LIMIT, "what the agent is told: {said}");
        }
    }
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

#[tokio::test]
async fn an_agent_that_floods_or_does_not_read_makes_the_relay_keep_a_bounded_amount() {
    let server = server(&[]).await;
    let key = server.key.parse().expect("a fingerprint");
    let bystanders = steady_at(Over::Quic, server.api, server.visitors(), key).await;
    let before = server.process.resident_bytes();
    let api = server.api.to_string();
    let cases = ["pings", "unknown-control", "unread-pings", "floods"];
    let mut rude = stranger("rude.py", &[&[&api[..]], &cases[..]].concat());
    for case in ["pings", "unknown-control"] {
        let said = rude.says().await;
        assert_eq!(
            (&said["case"], &said["alive"]),
            (&case.into(), &true.into())
        );
    }
    assert!(rude.says().await["id"].is_string(), "it reads no more");
    let deaf = server.process.resident_bytes();
    assert!(deaf < before + MEMORY, "from {before} to {deaf} bytes");
    assert_eq!(rude.says().await["code"], PROTOCOL);
    let said = rude.says().await;
    // He does not read a byte.
    let visitor = knock(server.visitors(), &hello(&host(&said))).await;
    let said = rude.says().await;
    let after = server.process.resident_bytes();
    println!("{} bytes more, {said}", after.saturating_sub(before));
    assert_eq!(said["alive"], true, "{said}");
    assert!(after < before + MEMORY, "from {before} to {after} bytes");
    drop(visitor);
    rude.is_done().await;
    bystanders.was_not_disturbed().await;
}

/// Lets everybody in until it changes its mind.
#[derive(Debug, Default)]
struct Moody {
    refuses: AtomicBool,
    moods: watch::Sender<u64>,
}

impl Admission for Moody {
    fn decide<'a>(&'a self, _: &'a Applicant) -> Deciding<'a> {
        let verdict = if self.refuses.load(Ordering::Relaxed) {
            Verdict::Refused {
                text: "not any more".to_owned(),
                retry_after: None,
            }
        } else {
            Verdict::Admitted
        };
        Box::pin(std::future::ready(verdict))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.moods.subscribe()
    }
}

/// Within this an agent that is not allowed any more gets no visits.
const REMOVED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_agent_that_does_not_read_can_not_put_off_its_removal() {
    let moody = Arc::new(Moody::default());
    let admission = moody.clone();
    let relay = relay_with(|config| config.admission = admission).await;
    let mut rude = rude(&relay, &["unread-pings"]);
    let said = rude.says().await;
    moody.refuses.store(true, Ordering::Relaxed);
    moody.moods.send_modify(|mood| *mood += 1);
    let denied = Instant::now();
    is_gone(&relay, &said).await;
    let took = denied.elapsed();
    println!("gone after {took:?}");
    assert!(took < REMOVED_WITHIN, "gone after {took:?}");
}
