//! A crowd: thousands of visitors at once through one agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use e2e::origin::echo;
use e2e::pair::{Client, Server, publish, server};
use e2e::poll::{eventually, soon};
use e2e::process::{Process, folder};
use e2e::transport::Over;
use e2e::visitor::{Visitor, tls_config, visit_with};
use rstest::rstest;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tunnel_common::process::raise_descriptor_limit;

/// Visitors at once.
const CROWD: usize = 5000;
/// Handshakes at once: the kernel's queues are not what this story is about.
const ARRIVING: usize = 200;
/// What an idle visitor may cost a process (CASES, F40).
const IDLE_BYTES: u64 = 32 * 1024;

/// What a process has of what visitors take.
#[derive(Clone, Copy)]
struct Usage {
    descriptors: usize,
    resident: u64,
}

fn usage(process: &Process) -> Usage {
    Usage {
        descriptors: process.descriptors(),
        resident: process.resident_bytes(),
    }
}

/// Connects the whole crowd; every handshake must succeed, and all stay.
async fn arrive(relay: SocketAddr, host: &str, tls: &Arc<ClientConfig>) -> Vec<Visitor> {
    let door = Arc::new(Semaphore::new(ARRIVING));
    let mut arriving = JoinSet::new();
    for _ in 0..CROWD {
        let (door, host, tls) = (door.clone(), host.to_owned(), tls.clone());
        arriving.spawn(async move {
            let _permit = door.acquire_owned().await.expect("is never closed");
            visit_with(relay, &host, tls).await.expect("is let in")
        });
    }
    arriving.join_all().await
}

/// All say a word of their own at once, and each must get its own back.
async fn all_speak(crowd: Vec<Visitor>) -> Vec<Visitor> {
    let mut speaking = JoinSet::new();
    for (number, mut visitor) in crowd.into_iter().enumerate() {
        speaking.spawn(async move {
            let word = format!("visitor {number:>8}");
            visitor.write_all(word.as_bytes()).await.expect("is open");
            let mut echo = vec![0; word.len()];
            let heard = soon("the echo", visitor.read_exact(&mut echo)).await;
            heard.expect("is not cut off");
            assert_eq!(String::from_utf8_lossy(&echo), word);
            visitor
        });
    }
    speaking.join_all().await
}

/// Tells what a visitor costs `process`, which must not be much.
fn tell_cost(name: &str, process: &Process, before: Usage) {
    let grown = process.resident_bytes().saturating_sub(before.resident);
    let each = grown / CROWD as u64;
    eprintln!("{name}: {each} bytes for each idle visitor");
    assert!(each <= IDLE_BYTES, "{name}: {each} bytes for each visitor");
}

/// Waits until `process` has given back the descriptors of the crowd.
async fn recovers(name: &str, process: &Process, before: Usage) {
    eventually(&format!("{name} has its descriptors back"), || {
        process.descriptors() <= before.descriptors
    })
    .await;
}

async fn pair(over: Over, origin: SocketAddr) -> (Server, Client) {
    let server = server(&[]).await;
    let client = publish(over, &server, origin, &[], folder()).await;
    (server, client)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_five_thousand_visitors_at_once_are_served_and_leave_nothing_behind(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let descriptors = raise_descriptor_limit();
    assert!(
        descriptors > 2 * CROWD as u64 + 100,
        "this story needs 10,100 descriptors, the hard limit is {descriptors} (ulimit -Hn)"
    );
    let origin = echo().await;
    let (server, client) = pair(over, origin.address).await;
    let tls = tls_config(&[b"http/1.1"]);
    let relay = server.visitors();
    let first = visit_with(relay, client.host(), tls.clone()).await;
    all_speak(vec![first.expect("is let in")]).await;
    let (relay_before, agent_before) = (usage(&server.process), usage(&client.process));

    let start = Instant::now();
    let crowd = arrive(relay, client.host(), &tls).await;
    eprintln!("{CROWD} handshakes: {:?}", start.elapsed());
    tell_cost("relay", &server.process, relay_before);
    tell_cost("agent", &client.process, agent_before);

    let start = Instant::now();
    let crowd = all_speak(crowd).await;
    eprintln!("{CROWD} echoes at once: {:?}", start.elapsed());
    tell_cost("relay, after a word", &server.process, relay_before);
    tell_cost("agent, after a word", &client.process, agent_before);

    drop(crowd);
    recovers("the relay", &server.process, relay_before).await;
    recovers("the agent", &client.process, agent_before).await;
    let last = visit_with(relay, client.host(), tls).await;
    all_speak(vec![last.expect("is let in")]).await;
}
