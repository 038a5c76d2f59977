//! One agent's connections, the later in the place of the earlier: no visit is cut.

use std::time::Duration;

use e2e::agent::{new_key, same_key};
use e2e::arrival::{arrival, knock, rounds, visited};
use e2e::hello::hello;
use e2e::peer::{connect, connect_narrow, hello as agents, wanted};
use e2e::relay::{relay, relay_with};
use e2e::transport::Over;
use rstest::rstest;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{EndpointRef, Frame, Wanted};

/// Streams that a peer grants when the story is not about their number.
const STREAMS: u32 = 100;

#[rstest]
#[tokio::test]
async fn a_later_connection_of_an_agent_replaces_the_earlier_and_cuts_no_visit(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (relay().await, new_key());
    let old = connect(over, relay.api, &key, STREAMS).await;
    let (_old_control, _) = old.register(agents(1, 0)).await;
    let (mut early, mut early_arrived) = visited(&relay, &old).await;

    let new = connect(over, relay.api, &same_key(&key), STREAMS).await;
    let (_new_control, _) = new.register(agents(1, 1)).await;
    for _ in 0..3 {
        visited(&relay, &new).await;
    }
    early_arrived.exchanges(&mut early).await;
    assert!(old.is_open(), "its visit goes on");

    drop((early, early_arrived));
    assert_eq!(old.closed_with().await, Code::Replaced);
    assert!(new.is_open());
}

#[rstest]
#[tokio::test]
async fn an_earlier_connection_that_comes_late_is_refused_and_the_later_one_serves_on(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (relay().await, new_key());
    let new = connect(over, relay.api, &key, STREAMS).await;
    let (mut new_control, _) = new.register(agents(1, 5)).await;
    let late = connect(over, relay.api, &same_key(&key), STREAMS).await;
    let mut control = late.control().await;
    control
        .writer
        .send(&Frame::Hello(agents(1, 4)))
        .await
        .expect("sends");
    match control.next().await {
        Some(Frame::Refused(refused)) => {
            assert_eq!(Code::from(u64::from(refused.code)), Code::Replaced);
        }
        other => panic!("not refused: {other:?}"),
    }
    late.closed_with().await;
    let _visitor = knock(relay.public, &hello(&new.host())).await;
    arrival(&new).await;
    assert_eq!(rounds(&mut new_control, 1).await, []);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_does_not_listen_is_replaced_and_closed_like_any_other(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let patience = Duration::from_secs(1);
    let relay = relay_with(|config| config.timeouts.control_write = patience).await;
    let key = new_key();
    let deaf = connect_narrow(over, relay.api, &key, 1024).await;
    let (mut control, _) = deaf.register(agents(1, 0)).await;
    for nonce in 0..1000 {
        control
            .writer
            .send(&Frame::Ping { nonce })
            .await
            .expect("sends");
    }
    let new = connect(over, relay.api, &same_key(&key), STREAMS).await;
    new.register(agents(1, 1)).await;
    deaf.closed_with().await;
}

#[rstest]
#[tokio::test]
async fn a_visit_goes_on_when_its_endpoint_is_renamed_and_then_its_connection_replaced(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (relay().await, new_key());
    let old = connect(over, relay.api, &key, STREAMS).await;
    let (mut old_control, _) = old.register(agents(1, 0)).await;
    let (mut visitor, mut arrived) = visited(&relay, &old).await;
    let renamed = Wanted {
        endpoint: EndpointRef::try_from("renamed".to_owned()).expect("a ref"),
        ..wanted(None)
    };
    let wishes = Frame::Wanted {
        rev: 2,
        wanted: vec![renamed],
    };
    old_control.writer.send(&wishes).await.expect("sends");
    let answers = rounds(&mut old_control, 1).await;
    assert!(matches!(answers[..], [Frame::Granted { rev: 2, .. }]));

    let new = connect(over, relay.api, &same_key(&key), STREAMS).await;
    let (mut new_control, _) = new.register(agents(1, 1)).await;
    assert_eq!(rounds(&mut new_control, 20).await, []);
    arrived.exchanges(&mut visitor).await;
    drop((visitor, arrived));
    assert_eq!(old.closed_with().await, Code::Replaced);
}
