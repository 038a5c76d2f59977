//! What visits that do nothing, or too much, cost the others: nothing.

use std::io::ErrorKind;
use std::time::Duration;

use e2e::poll::{eventually, soon};
use e2e::stage::{
    Stage, descriptors, drain, drain_to_end, drain_to_reset, pour, pour_until_stuck, sip, stage,
    stage_with,
};
use e2e::transport::Over;
use e2e::visitor::Visitor;
use rstest::rstest;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tunnel_common::splice::options::Timeouts;

const MIB: usize = 1024 * 1024;
const MB: usize = 1_000_000;
/// Visits that are half closed at one time: each is up to eight descriptors of this process.
const HALF_CLOSED: usize = 1000;

/// A stage on which what is half closed is reaped after `half_closed` of silence.
async fn reaping_stage(over: Over, half_closed: Duration) -> Stage {
    let splice = Timeouts {
        half_closed,
        ..Timeouts::default()
    };
    let relay = |config: &mut tunnel_server::config::Config| config.timeouts.splice = splice;
    let agent = |config: &mut tunnel_client::config::Config| {
        config.timeouts.splice = splice;
        // No connection that comes later is counted.
        config.pool_size = 1;
    };
    stage_with(over, relay, agent).await
}

#[rstest]
#[tokio::test]
async fn heavy_a_thousand_half_closed_visits_are_reaped_and_leave_nothing(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = reaping_stage(over, Duration::from_secs(2)).await;
    let before = descriptors();
    let mut held: Vec<(Visitor, TcpStream)> = Vec::new();
    for number in 0..HALF_CLOSED {
        let (mut visitor, mut local) = stage.visit().await;
        // In turn it is the visitor and the service who ends, and the other who is silent.
        if number % 2 == 0 {
            visitor.shutdown().await.expect("half-closes");
        } else {
            local.shutdown().await.expect("half-closes");
        }
        held.push((visitor, local));
    }
    for (number, (visitor, local)) in held.iter_mut().enumerate() {
        if number % 2 == 0 {
            assert_eq!(drain_to_end(local).await, 0);
            drain_to_reset(visitor).await;
        } else {
            assert_eq!(drain_to_end(visitor).await, 0);
            drain_to_reset(local).await;
        }
    }
    drop(held);
    eventually("all descriptors are given back", || descriptors() <= before).await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_stops_reading_does_not_harm_another_of_the_same_agent(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage(over).await;
    let (_paused, mut endless) = stage.visit().await;
    pour_until_stuck(&mut endless).await.expect("answers");
    let (mut reader, mut local) = stage.visit().await;
    let answering = tokio::spawn(async move {
        pour(&mut local, 20 * MB).await.expect("answers");
        local.shutdown().await.expect("ends");
        drain_to_end(&mut local).await
    });
    assert_eq!(drain_to_end(&mut reader).await, 20 * MB);
    reader.shutdown().await.expect("ends");
    soon("the service ends", answering).await.expect("answers");
}

/// So little memory that the fourth visitor who stops reading is one too many: over HTTP/2 a stream
/// may have less under way.
fn short(over: Over) -> usize {
    match over {
        Over::Quic => 16 * MIB,
        Over::H2 => 4 * MIB,
    }
}

/// A stage whose relay has so much memory for visitors who do not read, and calls them stalled
/// after `stalled`.
async fn stalling_stage(over: Over, memory_budget: usize, stalled: Duration) -> Stage {
    let relay = |config: &mut tunnel_server::config::Config| {
        config.memory_budget = memory_budget as u64;
        config.timeouts.splice.stalled = stalled;
        config.timeouts.splice.probe = stalled / 4;
    };
    stage_with(over, relay, |_| {}).await
}

/// A visit in which the service sends until nothing goes any more.
async fn stalled_visit(stage: &mut Stage) -> (Visitor, TcpStream) {
    let (visitor, mut local) = stage.visit().await;
    pour_until_stuck(&mut local).await.expect("answers");
    (visitor, local)
}

/// Waits until the service learns that the visit is over, and the visitor too.
async fn is_reset((mut visitor, mut local): (Visitor, TcpStream)) {
    drain_to_reset(&mut local).await;
    drain_to_reset(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn when_memory_is_short_those_who_stopped_reading_first_go_and_a_reader_stays(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stalling_stage(over, short(over), Duration::from_millis(200)).await;
    let (mut reader, mut local) = stage.visit().await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(stalled_visit(&mut stage).await);
    }
    let (mut last, mut last_local) = stalled.pop().expect("the last");
    let mut stalled = stalled.into_iter();
    is_reset(stalled.next().expect("the first")).await;
    let answering = tokio::spawn(async move {
        pour(&mut local, 20 * MB).await.expect("answers");
        local.shutdown().await.expect("ends");
        drain_to_end(&mut local).await
    });
    let all = soon("the reader gets all", drain_to_end(&mut reader));
    assert_eq!(all.await, 20 * MB);
    reader.shutdown().await.expect("ends");
    soon("the service ends", answering).await.expect("answers");
    // Who stopped last had room, and goes on.
    last_local.shutdown().await.expect("ends");
    drain_to_end(&mut last).await;
}

#[rstest]
#[tokio::test]
async fn two_who_stop_reading_leave_a_small_relay_room_for_a_reader(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stalling_stage(over, short(over), Duration::from_millis(200)).await;
    let _first = stalled_visit(&mut stage).await;
    let _second = stalled_visit(&mut stage).await;
    let (mut reader, mut local) = stage.visit().await;
    let answering = tokio::spawn(async move {
        pour(&mut local, 20 * MB).await.expect("answers");
        local.shutdown().await.expect("ends");
    });
    let all = soon("the reader gets all", drain_to_end(&mut reader));
    assert_eq!(all.await, 20 * MB);
    answering.await.expect("answers");
}

#[rstest]
#[tokio::test]
async fn with_memory_to_spare_whoever_stops_reading_may_go_on_later(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stalling_stage(over, 1024 * MIB, Duration::from_millis(50)).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        stalled.push(stalled_visit(&mut stage).await);
    }
    for (mut visitor, mut local) in stalled {
        let ending = tokio::spawn(async move {
            local.shutdown().await.expect("ends");
            drain_to_end(&mut local).await
        });
        assert!(drain_to_end(&mut visitor).await > 4 * MIB);
        visitor.shutdown().await.expect("ends");
        soon("the service ends", ending).await.expect("ends");
    }
}

#[rstest]
#[tokio::test]
async fn a_hundred_thousand_single_bytes_for_a_visitor_who_does_not_read_cost_nobody_else_his_visit(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const BYTES: usize = 100_000;
    let mut stage = stage(over).await;
    let (mut other, mut other_local) = stage.visit().await;
    let (mut paused, mut local) = stage.narrow_visit().await;
    for _ in 0..BYTES {
        let writing = local.write_all(b"~");
        soon("the byte is taken", writing).await.expect("goes on");
    }
    local.shutdown().await.expect("ends");
    // The visit from before: its tunnel is still the same.
    pour(&mut other_local, MB).await.expect("goes on");
    sip(&mut other, MB).await;
    match drain(&mut paused).await {
        (bytes, Ok(())) => assert_eq!(bytes, BYTES),
        (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}
