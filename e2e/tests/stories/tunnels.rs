//! Visits as they arrive at an agent, how they end, and agents that have no room or do not answer.

use std::io::ErrorKind;
use std::time::Duration;

use e2e::agent::{new_key, publish_as, same_key};
use e2e::arrival::{arrival, knock, rounds, visited};
use e2e::hello::{hello, hello_with};
use e2e::origin::http;
use e2e::peer::{Peer, PeerControl, connect, connect_narrow, hello as agents};
use e2e::poll::soon;
use e2e::relay::{Relay, relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{get, say, tls_config};
use rcgen::KeyPair;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::EndpointRef;

const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
const STREAMS: u32 = 100;
/// A deadline that no story reaches.
const NEVER: Duration = Duration::from_secs(600);
/// A deadline that a story waits for.
const SHORT: Duration = Duration::from_millis(300);

/// An agent made by hand that serves.
async fn serving(
    over: Over,
    relay: &Relay,
    key: &KeyPair,
    instance: u8,
    streams: u32,
) -> (Peer, PeerControl) {
    let peer = connect(over, relay.api, key, streams).await;
    let (control, _) = peer.register(agents(instance, 0)).await;
    (peer, control)
}

/// All that the visitor still gets, and how it ends.
async fn end_of(mut visitor: TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    match soon("the visit ends", visitor.read_to_end(&mut bytes)).await {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.kind()),
    }
}

#[rstest]
#[tokio::test]
async fn a_visit_begins_with_who_the_visitor_is_and_goes_on_with_his_bytes(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, STREAMS).await;
    let sent = hello_with(&peer.host(), tls_config(&[b"h2", b"http/1.1"]));
    let mut visits = vec![];
    for _ in 0..2 {
        let visitor = knock(relay.public, &sent).await.expect("connects");
        let mut arrived = arrival(&peer).await;
        let header = &arrived.header;
        assert_eq!(header.visitor, visitor.local_addr().expect("connected"));
        assert_eq!(header.public, relay.public);
        assert_eq!(header.server_name, Some(peer.host()));
        assert_eq!(header.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(header.endpoint, EndpointRef::default());
        visits.push(header.visit);
        assert_eq!(arrived.bytes(sent.len()).await, sent);
    }
    assert_ne!(visits[0], visits[1]);
}

#[rstest]
#[tokio::test]
async fn a_visit_that_the_agent_resets_ends_as_a_reset_and_not_as_if_it_were_complete(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, STREAMS).await;
    let (mut visitor, mut arrived) = visited(&relay, &peer).await;
    arrived.exchanges(&mut visitor).await;
    arrived.send.reset(Code::LocalRefused);
    assert_eq!(end_of(visitor).await, Err(ErrorKind::ConnectionReset));
}

#[rstest]
#[tokio::test]
async fn a_visit_that_the_agent_finishes_ends_cleanly_after_its_last_byte(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, STREAMS).await;
    let (visitor, mut arrived) = visited(&relay, &peer).await;
    arrived
        .send
        .write_all(b"the last words")
        .await
        .expect("sends");
    arrived.send.finish();
    assert_eq!(end_of(visitor).await, Ok(b"the last words".to_vec()));
}

#[rstest]
#[tokio::test]
async fn visits_end_as_resets_when_their_tunnel_dies(#[values(Over::Quic, Over::H2)] over: Over) {
    let relay = relay().await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, STREAMS).await;
    let (mut visitor, mut arrived) = visited(&relay, &peer).await;
    arrived.exchanges(&mut visitor).await;
    peer.close();
    assert_eq!(end_of(visitor).await, Err(ErrorKind::ConnectionReset));
}

#[rstest]
#[tokio::test]
async fn a_visitor_for_whom_the_agent_has_no_stream_waits_until_it_has(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.stream_open = NEVER).await;
    let (peer, mut control) = serving(over, &relay, &new_key(), 1, 2).await;
    let (first, first_arrived) = visited(&relay, &peer).await;
    let (mut second, mut second_arrived) = visited(&relay, &peer).await;
    let bytes = hello(&peer.host());
    let _third = knock(relay.public, &bytes).await.expect("connects");
    tokio::select! {
        biased;
        _ = peer.accepts() => panic!("a third stream"),
        _ = rounds(&mut control, 20) => {}
    }
    drop((first, first_arrived));
    let mut third_arrived = arrival(&peer).await;
    assert_eq!(third_arrived.bytes(bytes.len()).await, bytes);
    second_arrived.exchanges(&mut second).await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_for_whom_the_agent_has_no_stream_in_time_is_told_that_it_is_not_his_fault(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.stream_open = SHORT).await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, 2).await;
    let (mut first, mut first_arrived) = visited(&relay, &peer).await;
    let _second = visited(&relay, &peer).await;
    let said = say(relay.public, &hello(&peer.host())).await;
    assert_eq!(said.expect("an alert"), INTERNAL_ERROR);
    first_arrived.exchanges(&mut first).await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_for_whom_one_tunnel_has_no_stream_is_served_by_the_other_at_once(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| {
        config.timeouts.stream_open = NEVER;
        // What waits for an answer stays where it is.
        config.timeouts.pong = NEVER;
    });
    let (relay, key) = (relay.await, new_key());
    let (full, _control) = serving(over, &relay, &key, 1, 2).await;
    let _first = visited(&relay, &full).await;
    let _second = visited(&relay, &full).await;
    let (roomy, _roomy_control) = serving(over, &relay, &same_key(&key), 2, STREAMS).await;
    // More than the full one has, so that it would be the better choice.
    let mut visits = vec![];
    for _ in 0..5 {
        visits.push(visited(&relay, &roomy).await);
    }
}

#[rstest]
#[tokio::test]
async fn a_visit_to_an_agent_that_does_not_answer_ends_at_the_deadline(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.splice.first_answer = Some(SHORT)).await;
    let (peer, _control) = serving(over, &relay, &new_key(), 1, STREAMS).await;
    let visitor = knock(relay.public, &hello(&peer.host())).await;
    let ended = end_of(visitor.expect("connects")).await;
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}

#[rstest]
#[tokio::test]
async fn a_visit_to_an_agent_that_takes_no_bytes_ends_at_the_deadline(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| {
        config.timeouts.stream_open = SHORT;
        config.timeouts.splice.first_answer = Some(SHORT);
    });
    let relay = relay.await;
    let key = new_key();
    let peer = connect_narrow(over, relay.api, &key, 1024).await;
    let (_control, _) = peer.register(agents(1, 0)).await;
    let bytes = hello(&peer.host());
    assert!(bytes.len() > 1024, "more than the agent takes");
    let visitor = knock(relay.public, &bytes).await;
    let ended = end_of(visitor.expect("connects")).await;
    let told = ended == Ok(INTERNAL_ERROR.to_vec());
    let reset = ended == Err(ErrorKind::ConnectionReset);
    assert!(told || reset, "{ended:?}");
}

#[rstest]
#[tokio::test]
async fn while_one_replica_does_not_answer_the_other_serves(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.splice.first_answer = Some(NEVER)).await;
    let (key, origin) = (new_key(), http("awake").await);
    let (frozen, _control) = serving(over, &relay, &key, 1, STREAMS).await;
    let mut stuck = vec![];
    for _ in 0..10 {
        stuck.push(visited(&relay, &frozen).await);
    }
    let awake = publish_as(over, &relay, key, origin.address).await;
    let host = awake.host().await;
    for _ in 0..5 {
        let body = get(relay.public, &host).await;
        assert_eq!(body.expect("an answer"), "awake");
    }
}

#[rstest]
#[tokio::test]
async fn a_replica_that_let_a_visitor_down_gets_no_more_while_another_serves(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.splice.first_answer = Some(SHORT)).await;
    let (key, origin) = (new_key(), http("awake").await);
    let (frozen, _control) = serving(over, &relay, &key, 1, STREAMS).await;
    let let_down = visited(&relay, &frozen).await;
    let awake = publish_as(over, &relay, key, origin.address).await;
    let host = awake.host().await;
    let (visitor, _arrived) = let_down;
    assert_eq!(end_of(visitor).await, Err(ErrorKind::ConnectionReset));
    for _ in 0..10 {
        let body = get(relay.public, &host).await;
        assert_eq!(body.expect("an answer"), "awake");
    }
}
