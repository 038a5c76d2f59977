//! How an agent ends that is asked to: whoever waits for an answer gets it, and replicas take the rest.

use std::time::{Duration, Instant};

use e2e::agent::{new_key, publish_as, same_key};
use e2e::origin::http;
use e2e::poll::soon;
use e2e::relay::relay;
use e2e::stage::{
    Stage, drain_to_end, drain_to_reset, patient, patient_stage, pour, report, sip, stage_with,
    stays_silent,
};
use e2e::transport::Over;
use e2e::visitor::{Visitor, get};
use rstest::rstest;
use tokio::net::TcpStream;

/// Longer than a visit must be silent to be taken for one that waits for nothing.
const LONG: Duration = Duration::from_secs(3);
/// By when a visit that waits for nothing has ended.
const QUICK: Duration = Duration::from_secs(4);

/// A visit of which so much has been asked, and so much answered.
async fn visited(stage: &mut Stage, asked: usize, answered: usize) -> (Visitor, TcpStream) {
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, asked).await.expect("asks");
    sip(&mut local, asked).await;
    pour(&mut local, answered).await.expect("answers");
    sip(&mut visitor, answered).await;
    (visitor, local)
}

#[rstest]
#[tokio::test]
async fn a_request_that_waits_for_its_answer_gets_it_from_an_agent_that_ends_however_long_it_takes(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = visited(&mut stage, 1_000, 0).await;
    stage.agent.leaves();
    stays_silent(&mut visitor, LONG).await;
    pour(&mut local, 3_000_000).await.expect("answers");
    sip(&mut visitor, 3_000_000).await;
    assert_eq!(drain_to_end(&mut visitor).await, 0);
    assert_eq!(drain_to_end(&mut local).await, 0);
    drop(visitor);
    stage.agent.stop().await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_does_not_end_his_side_does_not_hold_up_an_agent_that_ends(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage_with(over, |_| {}, |_| {}).await;
    let (_visitor, _local) = visited(&mut stage, 1_000, 1_000).await;
    let since = Instant::now();
    stage.agent.stop().await;
    report("an agent whose visitor stays", since);
}

#[rstest]
#[tokio::test]
async fn a_visit_that_waits_for_nothing_gets_a_clean_end_at_both_ends_from_an_agent_that_ends(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = visited(&mut stage, 1_000, 1_000).await;
    let since = Instant::now();
    stage.agent.leaves();
    assert_eq!(drain_to_end(&mut visitor).await, 0);
    assert_eq!(drain_to_end(&mut local).await, 0);
    report("asked to leave to both ends of a keep-alive", since);
    assert!(since.elapsed() < QUICK);
    drop(visitor);
    stage.agent.stop().await;
    report("asked to leave to the end", since);
}

#[rstest]
#[tokio::test]
async fn when_the_grace_of_the_agent_is_over_the_visits_that_are_left_are_reset(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let agent = |config: &mut tunnel_client::config::Config| {
        config.timeouts.splice = patient();
        config.timeouts.drain_grace = Duration::from_millis(500);
    };
    let mut stage = stage_with(over, |_| {}, agent).await;
    let (mut visitor, mut local) = visited(&mut stage, 1_000, 0).await;
    stage.agent.stop().await;
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    assert_eq!(drain_to_reset(&mut local).await, 0);
}

#[rstest]
#[tokio::test]
async fn a_replica_takes_every_new_visit_of_an_agent_that_leaves(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (relay().await, new_key());
    let (one, two) = (http("one").await, http("two").await);
    let leaving = publish_as(over, &relay, same_key(&key), one.address).await;
    let _staying = publish_as(over, &relay, key, two.address).await;
    let host = leaving.host().await;
    leaving.leaves();
    let ended = tokio::spawn(async move { soon("it ends", leaving.stop()).await });
    let mut by_two = 0;
    while by_two < 20 {
        match get(relay.public, &host)
            .await
            .expect("no visit fails")
            .as_str()
        {
            "one" => assert_eq!(by_two, 0, "it has left"),
            _ => by_two += 1,
        }
    }
    ended.await.expect("no panic");
}
