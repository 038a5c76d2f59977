//! Visitors who break off by the hundred: nobody else loses anything, whatever carries the tunnel.

use std::net::SocketAddr;

use e2e::agent::publish;
use e2e::arrival::knock;
use e2e::hello::hello;
use e2e::origin::{echo, http, reset};
use e2e::pair::{self, server};
use e2e::panics;
use e2e::poll::{eventually, soon, until_ok};
use e2e::process::folder;
use e2e::relay::relay;
use e2e::stage::{descriptors, sip};
use e2e::steady::steady;
use e2e::transport::Over;
use e2e::visitor::{get, get_on, say, visit};
use rstest::rstest;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

const BURSTS: usize = 50;
const BURST: usize = 100;
/// Who break off while the agent is frozen: more than an HTTP/2 library takes for an accident (20),
/// and fewer than the relay has unanswered on one connection.
const IN_ONE_STALL: usize = 200;
/// Visitors who come and go while the relay takes in what came before them.
const ROUNDS: usize = 20;

/// Bursts of visitors who say hello and reset.
async fn storm(public: SocketAddr, hello: Vec<u8>) {
    for _ in 0..BURSTS {
        let mut visitors = JoinSet::new();
        for _ in 0..BURST {
            let hello = hello.clone();
            visitors.spawn(async move { reset(knock(public, &hello).await.expect("connects")) });
        }
        soon("the burst is over", visitors.join_all()).await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_five_thousand_who_say_hello_and_reset_disturb_nobody(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let panics = panics::watch();
    let (relay, origin) = (relay().await, http("served all along").await);
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let mut kept = visit(relay.public, &host).await.expect("visits");
    // With an answer, so that the visit has all the descriptors that it will ever have.
    get_on(&mut kept, &host).await.expect("an answer");
    let before = descriptors();
    let others = steady(over, &relay).await;
    let storming = tokio::spawn(storm(relay.public, hello(&host)));
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
    others.was_not_disturbed().await;
    // The visit from before the storm lives on: so does its tunnel.
    get_on(&mut kept, &host).await.expect("an answer");
    eventually("all descriptors are given back", || descriptors() <= before).await;
    until_ok("still served", async || get(relay.public, &host).await).await;
    assert_eq!(panics.count(), 0, "tasks that panicked");
}

#[rstest]
#[tokio::test]
async fn visitors_who_break_off_while_the_agent_is_frozen_do_not_cost_it_its_tunnel(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (server, origin) = (server(&[]).await, echo().await);
    let client = pair::publish(over, &server, origin.address, &[], folder()).await;
    let public = server.visitors();
    let mut kept = visit(public, client.host()).await.expect("visits");
    let before = server.process.descriptors();
    client.process.freezes().await;
    let (hello, mut visitors) = (hello(client.host()), vec![]);
    for _ in 0..IN_ONE_STALL {
        visitors.push(knock(public, &hello).await.expect("connects"));
    }
    eventually("they have all come", || {
        server.process.descriptors() >= before + IN_ONE_STALL
    })
    .await;
    for _ in 0..ROUNDS {
        say(public, b"\0").await.expect("an alert");
    }
    visitors.into_iter().for_each(reset);
    eventually("they have all gone", || {
        server.process.descriptors() <= before
    })
    .await;
    client.process.signal(Signal::CONT);
    kept.write_all(b"still here").await.expect("goes on");
    sip(&mut kept, 10).await;
    let mut other = visit(public, client.host()).await.expect("visits");
    other.write_all(b"also here").await.expect("goes on");
    sip(&mut other, 9).await;
    let log = client.process.log();
    assert_eq!(log.matches("tunnel serves").count(), 1, "{log}");
}
