//! What an agent on another HTTP/2 stack than ours may do with its connection: the relay is HTTP/2's
//! client there, the agent its server.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::arrival::knock;
use e2e::hello::hello;
use e2e::poll::{soon, until_ok};
use e2e::relay::{Relay, relay};
use e2e::steady::steady;
use e2e::stranger::{Stranger, stranger};
use e2e::transport::Over;
use e2e::visitor::say;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tunnel_common::budget::MemoryBudget;
use tunnel_common::h2::Purpose;
use tunnel_common::stream::h2::connection::connect;
use tunnel_common::stream::h2::settings::Settings;

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
// Codes of HTTP/2 (RFC 9113, 7).
const PROTOCOL_ERROR: u64 = 1;
const FLOW_CONTROL_ERROR: u64 = 3;
const FRAME_SIZE_ERROR: u64 = 6;
const ENHANCE_YOUR_CALM: u64 = 11;

/// What must come of a case.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The connection goes on.
    Alive,
    /// The connection ends with this code, or before the agent could read it.
    Closed(u64),
    /// The connection ends without a word.
    Cut,
    /// The connection goes on, and the stream was reset with this code.
    Reset(u64),
}
use Fate::{Alive, Closed, Cut, Reset};

const CASES: [(&str, Fate); 18] = [
    ("nothing", Alive),
    ("settings", Cut),
    ("pings", Cut),
    ("unknown-frames", Alive),
    ("empty-data", Closed(ENHANCE_YOUR_CALM)),
    ("push-promise", Closed(PROTOCOL_ERROR)),
    ("headers-of-1-mib", Closed(ENHANCE_YOUR_CALM)),
    ("continuations", Closed(ENHANCE_YOUR_CALM)),
    ("resets", Alive),
    ("reset-of-nothing", Closed(PROTOCOL_ERROR)),
    ("own-stream", Closed(PROTOCOL_ERROR)),
    ("goaway", Closed(0)),
    ("giant-frame", Closed(FRAME_SIZE_ERROR)),
    ("window-overflow", Closed(FLOW_CONTROL_ERROR)),
    ("stream-window-overflow", Reset(FLOW_CONTROL_ERROR)),
    // RFC 9113, 6.5.2 wants FLOW_CONTROL_ERROR; the library says it otherwise.
    ("bad-settings", Closed(PROTOCOL_ERROR)),
    ("too-much-data", Reset(FLOW_CONTROL_ERROR)),
    ("no-http2", Closed(FRAME_SIZE_ERROR)),
];

fn check(said: &Value, case: &str, fate: Fate) {
    assert_eq!(said["case"], case);
    match fate {
        Alive => assert_eq!(said["alive"], true, "{said}"),
        Closed(code) => {
            assert_eq!(said["alive"], false, "{said}");
            // What was still under way when it closed may reset the socket first.
            let told = said["closed_by"] == "goaway" && said["code"] == code;
            assert!(told || said["closed_by"] == "tcp", "{code}: {said}");
        }
        Cut => assert_eq!(said["closed_by"], "tcp", "{said}"),
        Reset(code) => {
            assert_eq!(said["alive"], true, "{said}");
            assert_eq!(said["closed_by"], "reset", "{said}");
            assert_eq!(said["code"], code, "{said}");
        }
    }
}

/// How long the relay's end is still moved when its control stream is over.
const LINGER: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_relays_end_of_an_http2_tunnel_stands_what_an_agent_may_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let names = CASES.map(|(case, _)| case);
    let arguments = [&[&address[..]], &names[..], &["--plain"]].concat();
    let mut agents = stranger("h2_agent.py", &arguments);
    let settings = Settings {
        ping_every: Duration::from_secs(2),
        silence: Duration::from_secs(8),
        budget: MemoryBudget::new(1 << 30),
    };
    for (case, fate) in CASES {
        let (tcp, _) = soon("the agent dials", listener.accept())
            .await
            .expect("accepts");
        let (opener, driver) = connect(tcp, &settings).await.expect("connects");
        let using = async {
            let control = opener.open(Purpose::Control).await;
            let said = agents.says().await;
            println!("{said}");
            check(&said, case, fate);
            drop((control, opener));
        };
        let (ended, ()) = tokio::join!(timeout(LINGER, driver), using);
        println!("{case}: {ended:?}");
        assert!(ended.is_ok(), "the driver ends with the connection");
    }
    agents.is_done().await;
}

/// Cases that end the control stream alone: then the relay ends the rest.
const END_CONTROL: [&str; 3] = ["resets", "stream-window-overflow", "too-much-data"];

/// Agents over TLS, one after the other.
fn agents(api: &str, cases: &[&str]) -> Stranger {
    stranger("h2_agent.py", &[&[api], cases].concat())
}

#[tokio::test]
async fn an_agent_that_breaks_the_rules_of_http2_is_closed_and_nobody_else_notices() {
    let relay = relay().await;
    let bystanders = steady(Over::H2, &relay).await;
    let mut agents = agents(&relay.api.to_string(), &CASES.map(|(case, _)| case));
    for (case, fate) in CASES {
        let said = agents.says().await;
        println!("{said}");
        if END_CONTROL.contains(&case) {
            assert_eq!(said["alive"], false, "{said}");
        } else {
            check(&said, case, fate);
        }
        let host = format!("{}.localhost", said["id"].as_str().expect("an id"));
        until_ok("its name is gone", async || {
            match say(relay.public, &hello(&host)).await {
                Ok(answer) if answer == UNRECOGNIZED_NAME => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    agents.is_done().await;
    bystanders.was_not_disturbed().await;
}

/// What the relay may take of a flood whose answers nobody reads: what its socket and its queue hold.
const TAKEN: u64 = 32 * 1024 * 1024;

#[tokio::test]
async fn heavy_an_agent_that_asks_and_does_not_read_is_not_read_either() {
    let relay = relay().await;
    let bystanders = steady(Over::H2, &relay).await;
    let cases = ["settings-unread", "pings-unread"];
    let mut agents = agents(&relay.api.to_string(), &cases);
    for case in cases {
        let said = agents.says().await;
        println!("{said}");
        assert_eq!(said["case"], case);
        let taken = said["taken"].as_u64().expect("a number");
        assert!(taken < TAKEN, "{said}");
    }
    agents.is_done().await;
    bystanders.was_not_disturbed().await;
}

/// What the agent answers every visit with.
const ANSWER: &[u8] = b"an answer over another HTTP/2";
// Types of fields in a header of the PROXY protocol (2.2.1); the last is ours.
const ALPN: &str = "1";
const SERVER_NAME: &str = "2";
const ENDPOINT: &str = "224";

/// Bytes as the agent tells them.
fn bytes(bytes: &[u8]) -> Value {
    bytes.into()
}

/// An agent that comes in by `port` is welcome, and serves a visitor from his first byte to his last.
async fn serves_a_visitor(relay: &Relay, port: SocketAddr) {
    let mut agent = agents(&port.to_string(), &["visit"]);
    let said = agent.says().await;
    let host = format!("{}.localhost", said["id"].as_str().expect("an id"));
    let url = &said["welcome"]["granted"][0]["urls"][0];
    let expected = format!("https://{host}:{}", relay.public.port());
    assert_eq!(url, &Value::from(expected), "{said}");

    let hello = hello(&host);
    let mut visitor = knock(relay.public, &hello).await.expect("connects");
    let address = visitor.local_addr().expect("connected").to_string();
    visitor.shutdown().await.expect("ends");
    let mut answer = vec![];
    let answering = visitor.read_to_end(&mut answer);
    soon("the answer", answering).await.expect("a clean end");
    assert_eq!(answer, ANSWER);

    let said = agent.says().await;
    assert_eq!(said["request"][":method"], "POST", "{said}");
    assert_eq!(said["request"][":path"], "/visit", "{said}");
    assert_eq!(said["header"]["visitor"], address, "{said}");
    assert_eq!(said["header"]["public"], relay.public.to_string(), "{said}");
    assert_eq!(
        said["header"][SERVER_NAME],
        bytes(host.as_bytes()),
        "{said}"
    );
    assert_eq!(said["header"][ALPN], bytes(b"http/1.1"), "{said}");
    assert_eq!(said["header"][ENDPOINT], bytes(b"\x01main"), "{said}");
    assert_eq!(said["bytes"], bytes(&hello), "{said}");
    assert_eq!(said["trailers"]["end"], "", "{said}");
    assert_eq!(said["alive"], true, "{said}");
    agent.is_done().await;
}

#[tokio::test]
async fn an_agent_on_another_http2_serves_a_visitor() {
    let relay = relay().await;
    serves_a_visitor(&relay, relay.api).await;
}

#[tokio::test]
async fn an_agent_on_another_http2_serves_a_visitor_through_the_public_port() {
    let relay = relay().await;
    serves_a_visitor(&relay, relay.public).await;
}
