//! Visits whose agent has not answered when its tunnel dies or falls silent: they move to another one, as
//! long as nothing but the hello has gone to it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use e2e::agent::{Agent, new_key, publish_as, same_key};
use e2e::arrival::{Arrival, arrival, knock, rounds, visited};
use e2e::hello::hello;
use e2e::origin::{Origin, http};
use e2e::peer::{Peer, PeerControl, connect, hello as says};
use e2e::poll::soon;
use e2e::relay::{Relay, relay, relay_with};
use e2e::stage::{NEVER, drain_to_reset};
use e2e::transport::Over;
use e2e::visitor::{Visitor, get_on, visit};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tunnel_common::wire::frame::Frame;

const STREAMS: u32 = 100;
/// What the agent that answers says.
const BODY: &str = "moved";
/// New visits are promised an answer within 1 s of the death of a replica; a busy machine may take more.
const SOON: Duration = Duration::from_secs(3);

/// Two replicas of one agent. The next visit goes to the one that never answers.
struct Scene {
    relay: Relay,
    mute: Peer,
    _awake: Agent,
    host: String,
    /// Keeps the one busy that answers.
    _busy: Visitor,
    control: PeerControl,
    _origin: Origin,
}

async fn scene(over: Over, relay: Relay) -> Scene {
    let (key, origin) = (new_key(), http(BODY).await);
    let awake = publish_as(over, &relay, same_key(&key), origin.address).await;
    let host = awake.host().await;
    let busy = visit(relay.public, &host).await.expect("visits");
    let mute = connect(over, relay.api, &key, STREAMS).await;
    let (control, _) = mute.register(says(1, 0)).await;
    Scene {
        relay,
        mute,
        _awake: awake,
        host,
        _busy: busy,
        control,
        _origin: origin,
    }
}

impl Scene {
    /// A visitor whose hello the mute replica has.
    async fn visitor_of_the_mute(&self) -> (JoinHandle<String>, Arrival) {
        let (relay, host) = (self.relay.public, self.host.clone());
        let visiting = tokio::spawn(async move {
            let mut visitor = visit(relay, &host).await.expect("a handshake");
            get_on(&mut visitor, &host).await.expect("an answer")
        });
        (visiting, arrival(&self.mute).await)
    }
}

async fn is_reset(mut arrived: Arrival) {
    let mut rest = vec![];
    let reading = soon("the stream ends", arrived.recv.read_to_end(&mut rest)).await;
    assert_eq!(
        reading.expect_err("a reset").kind(),
        ErrorKind::ConnectionReset
    );
}

#[rstest]
#[tokio::test]
async fn a_visit_that_one_replica_leaves_unanswered_is_served_by_the_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let scene = scene(over, relay().await).await;
    let came = Instant::now();
    let (visiting, arrived) = scene.visitor_of_the_mute().await;
    assert_eq!(visiting.await.expect("no panic"), BODY);
    println!("served after {:?}", came.elapsed());
    assert!(came.elapsed() < SOON, "{:?}", came.elapsed());
    is_reset(arrived).await;
}

#[rstest]
#[tokio::test]
async fn a_visit_whose_tunnel_dies_before_it_has_answered_moves_to_another(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.timeouts.pong = NEVER).await;
    let scene = scene(over, relay).await;
    let (visiting, _arrived) = scene.visitor_of_the_mute().await;
    scene.mute.close();
    assert_eq!(visiting.await.expect("no panic"), BODY);
}

#[rstest]
#[tokio::test]
async fn a_visit_that_waits_at_a_silent_tunnel_is_served_by_the_next_one_of_its_agent(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key, origin) = (relay().await, new_key(), http(BODY).await);
    let silent = connect(over, relay.api, &key, STREAMS).await;
    let (_control, _) = silent.register(says(1, 0)).await;
    let (public, host) = (relay.public, silent.host());
    let visiting = tokio::spawn(async move {
        let mut visitor = visit(public, &host).await.expect("a handshake");
        get_on(&mut visitor, &host).await.expect("an answer")
    });
    let arrived = arrival(&silent).await;
    let _agent = publish_as(over, &relay, key, origin.address).await;
    assert_eq!(visiting.await.expect("no panic"), BODY);
    is_reset(arrived).await;
}

#[rstest]
#[tokio::test]
async fn a_visit_of_which_more_than_the_hello_was_sent_does_not_move(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let scene = scene(over, relay().await).await;
    let mut bytes = hello(&scene.host);
    let length = bytes.len();
    bytes.extend(b"early");
    let mut visitor = knock(scene.relay.public, &bytes).await.expect("connects");
    let mut arrived = arrival(&scene.mute).await;
    assert_eq!(arrived.bytes(length + 5).await, bytes);
    scene.mute.close();
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
}

#[rstest]
#[tokio::test]
async fn a_visit_that_was_answered_does_not_move(#[values(Over::Quic, Over::H2)] over: Over) {
    let scene = scene(over, relay().await).await;
    let (mut visitor, mut arrived) = visited(&scene.relay, &scene.mute).await;
    arrived.send.write_all(b"a").await.expect("sends");
    assert_eq!(
        soon("a byte", visitor.read_u8()).await.expect("comes"),
        b'a'
    );
    scene.mute.close();
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
}

#[rstest]
#[tokio::test]
async fn a_replica_that_answers_late_keeps_its_visit(#[values(Over::Quic, Over::H2)] over: Over) {
    let relay = relay_with(|config| config.timeouts.first_question = Duration::ZERO).await;
    let mut scene = scene(over, relay).await;
    let (mute, control) = (&scene.mute, &mut scene.control);
    let (mut visitor, mut arrived) = visited(&scene.relay, mute).await;
    // It is asked whether it is there, and says so: the other one is no better.
    let asked = soon("a question", control.next()).await.expect("a frame");
    let Frame::Ping { nonce } = asked else {
        panic!("no question: {asked:?}");
    };
    let pong = Frame::Pong { nonce };
    control.writer.send(&pong).await.expect("sends");
    rounds(control, 20).await;
    arrived.exchanges(&mut visitor).await;
}
