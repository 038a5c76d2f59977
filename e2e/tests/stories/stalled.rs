//! Visitors who stop reading, more than all windows hold: whoever reads keeps half of his rate, and the
//! relay its memory.

use std::time::{Duration, Instant};

use e2e::origin::{Origin, origin};
use e2e::pair::{publish, server};
use e2e::poll::soon;
use e2e::process::folder;
use e2e::stage::{pour, sip};
use e2e::transport::Over;
use e2e::visitor::{Visitor, narrow_visit, visit};
use rstest::rstest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const MB: usize = 1_000_000;
/// What the rate is measured by.
const SAMPLE: usize = 50 * MB;
/// Of so many samples the best counts: a busy machine makes them worse, and nothing better.
const SAMPLES: usize = 6;
/// What the service sends to a visitor, who may take it or not.
const ENDLESS: usize = 2000 * MB;
/// What the relay may keep for visitors who do not read, in mebibytes.
const BUDGET: u64 = 512;
/// Longer than it takes a relay to call a visitor stalled.
const SETTLED: Duration = Duration::from_secs(8);

/// As many as fill the connection's window: a stream has 4 of 256 MiB over QUIC, and at least one
/// of 128 MiB over HTTP/2.
fn crowd(over: Over) -> usize {
    match over {
        Over::Quic => 100,
        Over::H2 => 600,
    }
}

async fn endless() -> Origin {
    origin(async |mut stream: TcpStream| {
        // A visitor who leaves is how every transfer here ends.
        let _ = pour(&mut stream, ENDLESS).await;
    })
    .await
}

/// Bytes in a second.
async fn rate(reader: &mut Visitor) -> f64 {
    let since = Instant::now();
    soon("the sample", sip(reader, SAMPLE)).await;
    SAMPLE as f64 / since.elapsed().as_secs_f64()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_however_many_stop_reading_who_reads_keeps_half_of_his_rate(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let budget = BUDGET.to_string();
    let server = server(&["--memory-budget", &budget]).await;
    let origin = endless().await;
    let client = publish(over, &server, origin.address, &[], folder()).await;
    let (public, host) = (server.visitors(), client.host());
    let mut reader = visit(public, host).await.expect("visits");
    rate(&mut reader).await;
    let alone = rate(&mut reader).await;

    let mut coming = JoinSet::new();
    for _ in 0..crowd(over) {
        let host = host.to_owned();
        coming.spawn(async move { narrow_visit(public, &host).await.expect("visits") });
    }
    let came = Instant::now();
    let mut stalled = vec![];
    while !coming.is_empty() || came.elapsed() < SETTLED {
        rate(&mut reader).await;
        while let Some(visitor) = coming.try_join_next() {
            stalled.push(visitor.expect("no panic"));
        }
    }
    let mut among_them = 0.0_f64;
    for _ in 0..SAMPLES {
        among_them = among_them.max(rate(&mut reader).await);
    }
    let megabytes = server.process.resident_bytes() / MB as u64;
    println!(
        "alone {:.0} MB/s, among {} who do not read {:.0} MB/s; the relay has {megabytes} MB",
        alone / MB as f64,
        stalled.len(),
        among_them / MB as f64
    );
    assert!(among_them >= alone / 2.0, "{among_them} of {alone}");
    assert!(megabytes <= BUDGET, "{megabytes} MB");
}
