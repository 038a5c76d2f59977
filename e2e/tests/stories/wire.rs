//! What relay and agent say to each other on the control stream, told by an agent made by hand.

use std::time::Duration;

use e2e::agent::{new_key, publish};
use e2e::arrival::{arrival, knock, rounds};
use e2e::hello::hello;
use e2e::origin::http;
use e2e::peer::streams::{PeerRecv, PeerSend};
use e2e::peer::{Peer, PeerControl, connect, hello as agents, wanted};
use e2e::poll::{eventually, soon};
use e2e::process::server_logging;
use e2e::relay::{Relay, relay, relay_for, relay_with};
use e2e::transport::Over;
use e2e::visitor::{get, say};
use rstest::rstest;
use tokio::io::AsyncWriteExt as _;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{EndpointRef, Frame, Granted, Outcome, Wanted};

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// Streams that a peer grants when the story is not about their number.
const STREAMS: u32 = 100;
const POLICY: u32 = 6;

async fn peer(over: Over, relay: &Relay) -> Peer {
    connect(over, relay.api, &new_key(), STREAMS).await
}

/// Visits `host` and must be told that there is no such name.
async fn is_refused(relay: &Relay, host: &str) {
    let said = say(relay.public, &hello(host)).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME, "{host}");
}

/// Wishes anew, and gives the answer to that revision.
async fn wish(control: &mut PeerControl, rev: u64, wanted: Vec<Wanted>) -> Vec<Granted> {
    let frame = Frame::Wanted { rev, wanted };
    control.writer.send(&frame).await.expect("sends");
    match control.next().await {
        Some(Frame::Granted {
            rev: answered,
            granted,
        }) => {
            assert_eq!(answered, rev);
            granted
        }
        other => panic!("no grant: {other:?}"),
    }
}

fn refusal(granted: &[Granted]) -> u32 {
    match granted {
        [
            Granted {
                outcome: Outcome::Refused(refused),
                ..
            },
        ] => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn the_welcome_says_who_the_relay_is_and_where_visitors_come(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (_control, welcome) = peer.register(agents(1, 0)).await;
    let port = relay.public.port();
    assert_eq!(welcome.relay_id, relay.fingerprint.to_string());
    assert_eq!((welcome.public_port, welcome.rev), (port, 1));
    let url = format!("https://{}:{port}", peer.host());
    let granted = Granted {
        endpoint: EndpointRef::default(),
        leads: false,
        outcome: Outcome::Urls(vec![url]),
    };
    assert_eq!(welcome.granted, [granted]);
}

#[rstest]
#[tokio::test]
async fn an_agent_gets_visitors_from_when_it_wants_them_until_it_does_not(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let mut first = agents(1, 0);
    first.wanted = vec![];
    let (mut control, welcome) = peer.register(first).await;
    assert_eq!(welcome.granted, []);
    is_refused(&relay, &peer.host()).await;

    let granted = wish(&mut control, 7, vec![wanted(None)]).await;
    assert!(matches!(granted[0].outcome, Outcome::Urls(_)));
    let bytes = hello(&peer.host());
    let mut visitor = knock(relay.public, &bytes).await.expect("connects");
    let mut arrived = arrival(&peer).await;
    assert_eq!(arrived.bytes(bytes.len()).await, bytes);

    assert_eq!(wish(&mut control, 8, vec![]).await, []);
    is_refused(&relay, &peer.host()).await;
    arrived.exchanges(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn nobody_gets_the_name_of_another_or_a_name_elsewhere(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_for(&["tunnel.example"]).await;
    let origin = http("the owner's").await;
    let agent = publish(over, &relay, origin.address).await;
    let owners = agent.host().await;
    let thief = peer(over, &relay).await;
    let foreign = format!("{}.evil.example", thief.id);

    let mut first = agents(1, 0);
    first.wanted = vec![wanted(Some(owners.clone()))];
    let (mut control, welcome) = thief.register(first).await;
    assert_eq!(refusal(&welcome.granted), POLICY);
    for (rev, host) in [(2, owners.clone()), (3, foreign)] {
        let granted = wish(&mut control, rev, vec![wanted(Some(host))]).await;
        assert_eq!(refusal(&granted), POLICY);
    }
    let body = get(relay.public, &owners).await;
    assert_eq!(body.expect("an answer"), "the owner's");
    is_refused(&relay, &format!("{}.tunnel.example", thief.id)).await;
}

/// Both halves of a control stream, for bytes that are no frames of ours.
async fn raw_control(peer: &Peer) -> (PeerSend, ControlReader<PeerRecv>) {
    let control = peer.control().await;
    (control.writer.into_inner(), control.reader)
}

/// A frame's bytes with whatever is in it.
fn framed(json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).expect("a short frame");
    [&length.to_be_bytes()[..], json.as_bytes()].concat()
}

const NEWER_HELLO: &str = r#"{"type":"Hello","instance":"07070707070707070707070707070707",
    "epoch":0,"colour":{"r":1},"features":["teleport"],"rev":1,
    "wanted":[{"ref":"main","kind":"https","weight":3},{"ref":"q","kind":"quantum"}]}"#;

#[rstest]
#[tokio::test]
async fn what_a_newer_agent_says_beyond_us_is_ignored(#[values(Over::Quic, Over::H2)] over: Over) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (mut send, reader) = raw_control(&peer).await;
    for json in [r#"{"type":"Overture","key":"c minor"}"#, NEWER_HELLO] {
        send.write_all(&framed(json)).await.expect("sends");
    }
    let mut control = PeerControl {
        reader,
        writer: ControlWriter::new(send),
    };
    let Some(Frame::Welcome(welcome)) = control.next().await else {
        panic!("not welcome");
    };
    assert_eq!(welcome.features, Vec::<String>::new());
    assert!(matches!(welcome.granted[0].outcome, Outcome::Urls(_)));
    assert_eq!(refusal(&welcome.granted[1..]), POLICY);

    let mut send = control.writer.into_inner();
    for json in [
        r#"{"type":"Colour","rgb":[1,2]}"#,
        r#"{"type":"Ping","nonce":5,"by":"me"}"#,
    ] {
        send.write_all(&framed(json)).await.expect("sends");
    }
    let answer = soon("a pong", control.reader.next()).await;
    assert_eq!(answer.expect("reads"), Some(Frame::Pong { nonce: 5 }));
}

#[rstest]
#[tokio::test]
async fn every_ping_is_answered_with_its_nonce(#[values(Over::Quic, Over::H2)] over: Over) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    for nonce in [0, 1, u64::MAX] {
        control
            .writer
            .send(&Frame::Ping { nonce })
            .await
            .expect("sends");
        assert_eq!(control.next().await, Some(Frame::Pong { nonce }));
    }
}

#[rstest]
#[tokio::test]
async fn the_relay_pings_an_agent_while_it_has_a_visit_and_not_before(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let often = Duration::from_millis(5);
    let relay = relay_with(|config| config.timeouts.quic.keep_alive = often).await;
    let peer = peer(over, &relay).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    assert_eq!(rounds(&mut control, 200).await, []);
    let visitor = knock(relay.public, &hello(&peer.host())).await;
    let _arrived = arrival(&peer).await;
    for _ in 0..3 {
        let frame = control.next().await;
        assert!(matches!(frame, Some(Frame::Ping { .. })), "{frame:?}");
    }
    drop(visitor);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_breaks_the_protocol_is_closed_with_the_code_for_it(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let hello = r#"{"type":"Hello","instance":"07070707070707070707070707070707","epoch":0,
        "wanted":[]}"#;
    let too_long = (64 * 1024 + 1_u32).to_be_bytes().to_vec();
    let openings = [
        ("a second Hello", [framed(hello), framed(hello)].concat()),
        ("no Hello first", framed(r#"{"type":"Ping","nonce":1}"#)),
        ("too long a frame", too_long.clone()),
        (
            "too long a frame, later",
            [framed(hello), too_long].concat(),
        ),
        ("rubbish", framed("{]")),
        ("rubbish, later", [framed(hello), framed("\0\0")].concat()),
        ("an empty frame", framed("")),
        (
            "a Hello without an instance",
            framed(r#"{"type":"Hello","epoch":0,"wanted":[]}"#),
        ),
    ];
    for (what, bytes) in openings {
        let peer = peer(over, &relay).await;
        let (mut send, _reader) = raw_control(&peer).await;
        send.write_all(&bytes).await.expect("sends");
        assert_eq!(peer.closed_with().await, Code::Protocol, "{what}");
        is_refused(&relay, &peer.host()).await;
    }
}

#[rstest]
#[tokio::test]
async fn an_agent_that_ends_its_control_stream_is_closed(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (control, _) = peer.register(agents(1, 0)).await;
    control.writer.into_inner().finish();
    assert_eq!(peer.closed_with().await, Code::Protocol);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_does_not_say_hello_in_time_is_closed(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let soon = Duration::from_millis(100);
    let relay = relay_with(|config| config.timeouts.hello = soon).await;
    let (mute, slow) = (peer(over, &relay).await, peer(over, &relay).await);
    let (mut send, _reader) = raw_control(&slow).await;
    send.write_all(&framed(NEWER_HELLO)[..20])
        .await
        .expect("sends");
    assert_eq!(mute.closed_with().await, Code::Protocol);
    assert_eq!(slow.closed_with().await, Code::Protocol);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_leaves_gets_no_more_visits_and_finishes_those_it_has(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let bytes = hello(&peer.host());
    let mut visitor = knock(relay.public, &bytes).await.expect("connects");
    let mut arrived = arrival(&peer).await;
    assert_eq!(arrived.bytes(bytes.len()).await, bytes);

    control.writer.send(&Frame::Leaving).await.expect("sends");
    assert_eq!(rounds(&mut control, 1).await, []);
    is_refused(&relay, &peer.host()).await;
    arrived.exchanges(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn an_agent_that_wishes_more_than_anybody_needs_is_answered_for_some_of_it(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = peer(over, &relay).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let wanted = vec![wanted(None); 1000];
    let frame = Frame::Wanted { rev: 2, wanted };
    control.writer.send(&frame).await.expect("sends");
    match control.next().await {
        Some(Frame::Granted { rev: 2, granted }) => assert_eq!(granted.len(), 16),
        other => panic!("no answer: {other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn the_relay_pings_an_agent_that_leaves_until_its_last_visit_is_over(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let often = Duration::from_millis(5);
    let relay = relay_with(|config| config.timeouts.quic.keep_alive = often).await;
    let peer = peer(over, &relay).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let _visitor = knock(relay.public, &hello(&peer.host())).await;
    let _arrived = arrival(&peer).await;
    control.writer.send(&Frame::Leaving).await.expect("sends");
    rounds(&mut control, 1).await;
    let frame = control.next().await;
    assert!(matches!(frame, Some(Frame::Ping { .. })), "{frame:?}");
}

#[tokio::test]
async fn nothing_that_an_agent_says_breaks_a_line_of_the_log_or_fills_it() {
    let mut server = server_logging("info,tunnel_server=debug", &[]);
    let api = server.address("API: udp ").await;
    let hostile = "\x1b[31m\r\nforged \u{9b}";
    let boaster = connect(Over::Quic, api, &new_key(), STREAMS).await;
    let mut hello = agents(1, 0);
    hello.agent_version = hostile.repeat(100);
    let (mut control, _) = boaster.register(hello).await;
    let mute = connect(Over::Quic, api, &new_key(), STREAMS).await;
    // The relay waits for the mute one's Hello by then.
    rounds(&mut control, 20).await;
    for peer in [mute, boaster] {
        peer.quic().close(1_u32.into(), hostile.as_bytes());
    }

    let babbler = connect(Over::Quic, api, &new_key(), STREAMS).await;
    let (mut send, _reader) = raw_control(&babbler).await;
    let long = "x".repeat(60_000);
    let frame = framed(&format!(r#"{{"type":"Ping","nonce":"{long}"}}"#));
    send.write_all(&frame).await.expect("sends");
    assert_eq!(babbler.closed_with().await, Code::Protocol);
    eventually("all three ends are in the log", || {
        let log = server.log();
        log.contains("tunnel ended") && log.matches("no tunnel: ").count() == 2
    })
    .await;
    let log = server.log();
    let bad = |c: char| c.is_control() && c != '\n';
    assert!(!log.contains(bad), "{}", log.escape_debug());
    for line in log.lines() {
        assert!(line.starts_with("20"), "no line of its own: {line:?}");
    }
    for line in log.lines() {
        assert!(line.len() < 1024, "{} bytes in a line", line.len());
    }
}
