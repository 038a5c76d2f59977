//! A key that may not stay loses all that it has, at once, whatever its agent does; and nobody else
//! loses anything.

use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{new_key, same_key};
use e2e::arrival::{arrival, knock, rounds, visited};
use e2e::hello::hello;
use e2e::peer::{Peer, PeerControl, connect, connect_narrow, hello as agents, wanted};
use e2e::poll::{eventually, soon};
use e2e::porter::{Porter, no, porter, relay_of, yes};
use e2e::relay::Relay;
use e2e::transport::Over;
use rcgen::KeyPair;
use rstest::rstest;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::frame::{EndpointRef, Frame, Granted, Outcome, Proof, Wanted};
use tunnel_common::{key, tls};
use tunnel_server::config::Suffixes;

/// Streams that a peer grants when the story is not about their number.
const STREAMS: u32 = 100;
/// Long enough for all that the relay does on its own accord.
const ROUNDS: u64 = 20;
/// A removal takes no longer.
const WITHIN: Duration = Duration::from_secs(1);
const IMPATIENT: Duration = Duration::from_millis(100);

fn id(key: &KeyPair) -> ClientId {
    key::fingerprint(key)
}

fn open() -> Arc<Porter> {
    porter(|_| yes())
}

fn deny(porter: &Porter, key: &KeyPair) {
    let denied = id(key);
    porter.changes_his_mind(move |applicant| {
        if applicant.id == denied {
            no(None)
        } else {
            yes()
        }
    });
}

/// A wish for a second endpoint, proved on this peer's connection.
fn second(peer: &Peer, key: &KeyPair, claim: Option<&[u8]>) -> Wanted {
    let here = peer.exporter();
    let certified = tls::self_signed_with_claim(key, claim).expect("a certificate");
    Wanted {
        endpoint: EndpointRef::secondary(),
        proof: Some(Proof::new(&certified, &here).expect("signs")),
        ..wanted(None)
    }
}

fn host_of(key: &KeyPair) -> String {
    format!("{}.localhost", id(key).label())
}

/// Registers with a second key.
async fn register_two(peer: &Peer, key: &KeyPair) -> PeerControl {
    let mut hello = agents(1, 0);
    hello.wanted.push(second(peer, key, None));
    peer.register(hello).await.0
}

/// A visit by the name of `key` whose hello has arrived at `peer`.
async fn visited_by_name(
    relay: &Relay,
    peer: &Peer,
    key: &KeyPair,
) -> (TcpStream, e2e::arrival::Arrival) {
    let bytes = hello(&host_of(key));
    let visitor = knock(relay.public, &bytes).await.expect("connects");
    let mut arrived = arrival(peer).await;
    arrived.bytes(bytes.len()).await;
    (visitor, arrived)
}

/// The visit must end, and soon.
async fn is_cut(visitor: &mut TcpStream) {
    let began = Instant::now();
    let mut byte = [0];
    let ended = soon("the visit ends", visitor.read(&mut byte)).await;
    assert!(!matches!(ended, Ok(1..)), "nothing was sent: {ended:?}");
    assert!(began.elapsed() < WITHIN, "after {:?}", began.elapsed());
}

fn is_granted(granted: &Granted) -> bool {
    matches!(granted.outcome, Outcome::Urls(_))
}

async fn next_grant(control: &mut PeerControl) -> Vec<Granted> {
    match control.next().await {
        Some(Frame::Granted { granted, .. }) => granted,
        other => panic!("no grant: {other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn a_change_that_is_about_somebody_else_leaves_a_draining_tunnel_alone(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, key) = (open(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let old = connect(over, relay.api, &key, STREAMS).await;
    let (mut control, _) = old.register(agents(1, 0)).await;
    let (mut visitor, mut arrived) = visited(&relay, &old).await;
    let new = connect(over, relay.api, &same_key(&key), STREAMS).await;
    let (mut of_new, _) = new.register(agents(1, 1)).await;
    let asked = porter.asked().len();
    porter.changes_his_mind(|_| yes());
    eventually("both are asked about", || porter.asked().len() >= asked + 2).await;
    assert_eq!(rounds(&mut of_new, ROUNDS).await, []);
    assert_eq!(rounds(&mut control, ROUNDS).await, []);
    arrived.exchanges(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn an_agent_that_is_leaving_can_be_removed_as_well(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, key) = (open(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let peer = connect(over, relay.api, &key, STREAMS).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    let (mut visitor, mut arrived) = visited(&relay, &peer).await;
    control.writer.send(&Frame::Leaving).await.expect("sends");
    rounds(&mut control, 1).await;
    let mut stream = control.writer.into_inner();
    stream.finish();
    soon("the relay has heard", stream.is_heard()).await;
    arrived.exchanges(&mut visitor).await;
    deny(&porter, &key);
    is_cut(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn a_key_that_is_not_wished_for_any_more_can_be_removed_as_well(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, main, other) = (open(), new_key(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let peer = connect(over, relay.api, &main, STREAMS).await;
    let mut control = register_two(&peer, &other).await;
    let (mut visitor, mut arrived) = visited_by_name(&relay, &peer, &other).await;
    let (mut of_main, mut main_arrived) = visited(&relay, &peer).await;
    let frame = Frame::Wanted {
        rev: 2,
        wanted: vec![wanted(None)],
    };
    control.writer.send(&frame).await.expect("sends");
    assert_eq!(next_grant(&mut control).await.len(), 1);
    arrived.exchanges(&mut visitor).await;
    deny(&porter, &other);
    is_cut(&mut visitor).await;
    main_arrived.exchanges(&mut of_main).await;
}

#[rstest]
#[tokio::test]
async fn a_visit_that_waits_for_a_stream_does_not_outlive_the_removal(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, main, other) = (open(), new_key(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let peer = connect(over, relay.api, &main, 1).await;
    let mut control = register_two(&peer, &other).await;
    let first = visited(&relay, &peer).await;
    let mut waiting = knock(relay.public, &hello(&host_of(&other)))
        .await
        .expect("connects");
    rounds(&mut control, ROUNDS).await;
    deny(&porter, &other);
    let granted = next_grant(&mut control).await;
    assert_eq!(
        granted.iter().map(is_granted).collect::<Vec<_>>(),
        [true, false]
    );
    drop(first);
    // What comes then comes to nobody.
    let mut alert = vec![];
    let refused = soon("the visitor is refused", waiting.read_to_end(&mut alert)).await;
    assert!(refused.is_err() || alert.starts_with(&[21]), "{alert:?}");
}

#[rstest]
#[tokio::test]
async fn what_one_tunnel_claims_is_no_other_tunnels_fault(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, main, shared) = (open(), new_key(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let good = connect(over, relay.api, &shared, STREAMS).await;
    let (mut of_good, _) = good.register(agents(2, 0)).await;
    let (mut visitor, mut arrived) = visited(&relay, &good).await;
    let old = connect(over, relay.api, &main, STREAMS).await;
    let mut hello = agents(1, 0);
    hello.wanted.push(second(&old, &shared, Some(b"old")));
    let (mut of_old, _) = old.register(hello).await;
    porter.changes_his_mind(|applicant| match applicant.extension.as_deref() {
        Some(b"old") => no(None),
        _ => yes(),
    });
    let granted = next_grant(&mut of_old).await;
    assert_eq!(
        granted.iter().map(is_granted).collect::<Vec<_>>(),
        [true, false]
    );
    let told = rounds(&mut of_good, ROUNDS).await;
    assert!(
        told.iter().all(|frame| matches!(frame, Frame::Ping { .. })),
        "{told:?}"
    );
    arrived.exchanges(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn while_nobody_decides_nothing_new_is_granted_and_it_is_asked_again(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, key) = (open(), new_key());
    let relay = relay_of(&porter, |config| {
        config.timeouts.admission = IMPATIENT;
        let suffixes = ["a.example", "b.example"].map(|s| s.parse().expect("a host name"));
        config.suffixes = Suffixes::These(suffixes.into());
    });
    let relay = relay.await;
    let label = id(&key).label();
    let peer = connect(over, relay.api, &key, STREAMS).await;
    let mut hello = agents(1, 0);
    hello.wanted = vec![wanted(Some(format!("{label}.a.example")))];
    let (mut control, _) = peer.register(hello).await;
    porter.decides(|_| None);
    let wish = |host: &str| Frame::Wanted {
        rev: 2,
        wanted: vec![wanted(Some(format!("{label}.{host}")))],
    };
    control
        .writer
        .send(&wish("a.example"))
        .await
        .expect("sends");
    assert!(
        is_granted(&next_grant(&mut control).await[0]),
        "it had that"
    );
    control
        .writer
        .send(&wish("b.example"))
        .await
        .expect("sends");
    assert!(
        !is_granted(&next_grant(&mut control).await[0]),
        "nobody has decided"
    );
    porter.decides(|_| yes());
    assert!(
        is_granted(&next_grant(&mut control).await[0]),
        "it is asked again"
    );
}

#[rstest]
#[tokio::test]
async fn a_second_key_about_which_nobody_decides_is_asked_about_again(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, main, other) = (open(), new_key(), new_key());
    let relay = relay_of(&porter, |config| config.timeouts.admission = IMPATIENT).await;
    let slow = id(&other);
    porter.decides(move |applicant| (applicant.id != slow).then(yes).flatten());
    let peer = connect(over, relay.api, &main, STREAMS).await;
    let mut hello = agents(1, 0);
    hello.wanted.push(second(&peer, &other, None));
    let (mut control, welcome) = peer.register(hello).await;
    assert!(is_granted(&welcome.granted[0]) && !is_granted(&welcome.granted[1]));
    porter.decides(|_| yes());
    let granted = next_grant(&mut control).await;
    assert!(granted.iter().all(is_granted), "{granted:?}");
}

#[rstest]
#[tokio::test]
async fn goodbyes_and_pings_are_heard_while_somebody_decides(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, key) = (open(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let peer = connect(over, relay.api, &key, STREAMS).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    // Without a visit it would be let go at once.
    let _visit = visited(&relay, &peer).await;
    let asked = porter.asked().len();
    porter.changes_his_mind(|_| None);
    eventually("he is asked", || porter.asked().len() > asked).await;
    control.writer.send(&Frame::Leaving).await.expect("sends");
    assert_eq!(rounds(&mut control, ROUNDS).await, []);
    let said = e2e::visitor::say(relay.public, &hello(&peer.host())).await;
    assert_eq!(
        said.expect("an alert"),
        [21, 3, 3, 0, 2, 2, 112],
        "it has gone"
    );
}

#[rstest]
#[tokio::test]
async fn an_agent_that_does_not_read_is_removed_as_fast_with_all_its_keys(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (porter, main, other) = (open(), new_key(), new_key());
    let relay = relay_of(&porter, |_| {}).await;
    let peer = connect_narrow(over, relay.api, &main, 2048).await;
    let mut control = register_two(&peer, &other).await;
    let bytes = hello(&host_of(&other));
    let mut visitor = knock(relay.public, &bytes).await.expect("connects");
    let _arrived = arrival(&peer).await;
    // Pongs that nobody reads fill the stream's window, and then the relay's queue.
    for nonce in 0..200 {
        let ping = Frame::Ping { nonce };
        control.writer.send(&ping).await.expect("sends");
    }
    deny(&porter, &main);
    is_cut(&mut visitor).await;
}
