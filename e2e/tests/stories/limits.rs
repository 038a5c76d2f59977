//! What visits that do nothing, or too much, cost the others: nothing.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::agent::publish;
use e2e::origin::{http, reset};
use e2e::poll::{eventually, soon, until_ok};
use e2e::relay::relay;
use e2e::stage::{
    Stage, descriptors, drain_to_end, drain_to_reset, pour, pour_until_stuck, stage_with,
};
use e2e::visitor::{Visitor, get, get_on, tls_config, visit};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tunnel_common::splice::options::Timeouts;

const MIB: usize = 1024 * 1024;
const MB: usize = 1_000_000;
/// Visits that are half closed at one time: each is up to eight descriptors of this process.
const HALF_CLOSED: usize = 1000;

/// A stage on which what is half closed is reaped after `half_closed` of silence.
async fn reaping_stage(half_closed: Duration) -> Stage {
    let splice = Timeouts {
        half_closed,
        ..Timeouts::default()
    };
    let relay = |config: &mut tunnel_server::config::Config| config.timeouts.splice = splice;
    stage_with(relay, |config| config.timeouts.splice = splice).await
}

#[tokio::test]
async fn heavy_a_thousand_half_closed_visits_are_reaped_and_leave_nothing() {
    let mut stage = reaping_stage(Duration::from_secs(2)).await;
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

#[tokio::test]
async fn a_visitor_who_stops_reading_does_not_harm_another_of_the_same_agent() {
    let mut stage = stage_with(|_| {}, |_| {}).await;
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

/// A stage whose relay has so much memory for visitors who do not read, and calls them stalled
/// after `stalled`.
async fn stalling_stage(memory_budget: usize, stalled: Duration) -> Stage {
    let relay = |config: &mut tunnel_server::config::Config| {
        config.memory_budget = memory_budget as u64;
        config.timeouts.splice.stalled = stalled;
        config.timeouts.splice.probe = stalled / 4;
    };
    stage_with(relay, |_| {}).await
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

#[tokio::test]
async fn when_memory_is_short_those_who_stopped_reading_first_go_and_a_reader_stays() {
    let mut stage = stalling_stage(16 * MIB, Duration::from_millis(200)).await;
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

#[tokio::test]
async fn two_who_stop_reading_leave_a_small_relay_room_for_a_reader() {
    let mut stage = stalling_stage(16 * MIB, Duration::from_millis(200)).await;
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

#[tokio::test]
async fn with_memory_to_spare_whoever_stops_reading_may_go_on_later() {
    let mut stage = stalling_stage(1024 * MIB, Duration::from_millis(50)).await;
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

/// A ClientHello for `host`, as it goes over the wire.
fn hello(host: &str) -> Vec<u8> {
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let mut tls = ClientConnection::new(tls_config(&[b"http/1.1"]), name).expect("a connection");
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).expect("into memory");
    bytes
}

/// Bursts of visitors who say hello and reset.
async fn storm(public: SocketAddr, hello: Vec<u8>, bursts: usize, burst: usize) {
    for _ in 0..bursts {
        let mut visitors = JoinSet::new();
        for _ in 0..burst {
            let hello = hello.clone();
            visitors.spawn(async move {
                let mut tcp = TcpStream::connect(public).await.expect("connects");
                tcp.write_all(&hello).await.expect("sends");
                reset(tcp);
            });
        }
        soon("the burst is over", visitors.join_all()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_two_thousand_who_say_hello_and_reset_disturb_nobody() {
    let panics = e2e::panics::watch();
    let (relay, origin) = (relay().await, http("served all along").await);
    let agent = publish(&relay, origin.address).await;
    let host = agent.host().await;
    let mut kept = visit(relay.public, &host).await.expect("visits");
    // With an answer, so that the visit has all the descriptors that it will ever have.
    get_on(&mut kept, &host).await.expect("an answer");
    let before = descriptors();
    let storming = tokio::spawn(storm(relay.public, hello(&host), 20, 100));
    let mut served = 0;
    while !storming.is_finished() {
        let body = get_on(&mut kept, &host).await.expect("an answer");
        assert_eq!(body, "served all along");
        let other = get(relay.public, &host).await;
        assert_eq!(other.expect("a new visitor is served"), "served all along");
        served += 1;
    }
    storming.await.expect("no panic");
    println!("served {served} pairs during the storm");
    // The visit from before the storm lives on: so does its tunnel.
    get_on(&mut kept, &host).await.expect("an answer");
    eventually("all descriptors are given back", || descriptors() <= before).await;
    until_ok("still served", async || get(relay.public, &host).await).await;
    assert_eq!(panics.count(), 0, "tasks that panicked");
}
