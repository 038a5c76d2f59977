//! Both ends send all they can, and the path is full both ways.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::task::JoinSet;

use super::harness::{Tunnel, settings, tunnel_over};
use crate::stream::h2::settings::Settings;
use crate::stream::h2::stream::H2Stream;

/// What the path holds each way: less than both ends want to have under way.
const PATH_BYTES: usize = 8 * 1024;
const STREAMS: usize = 8;
const BYTES: usize = 8 << 20;

/// Sends and receives as much at once.
fn exchange(stream: H2Stream, tasks: &mut JoinSet<()>) {
    let (mut read, mut write) = split(stream);
    tasks.spawn(async move {
        let piece = vec![7; 64 * 1024];
        for _ in 0..BYTES / piece.len() {
            write.write_all(&piece).await.expect("the tunnel lives");
        }
        write.shutdown().await.expect("ends");
    });
    tasks.spawn(async move {
        let (mut buffer, mut got) = (vec![0; 64 * 1024], 0);
        loop {
            match read.read(&mut buffer).await.expect("the tunnel lives") {
                0 => break,
                more => got += more,
            }
        }
        assert_eq!(got, BYTES);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_full_both_ways_does_not_stop() {
    let both = Settings {
        // Each end owes the other an answer all the time.
        ping_every: Duration::from_millis(10),
        silence: Duration::from_secs(8),
        ..settings()
    };
    let (near, far) = tokio::io::duplex(PATH_BYTES);
    let mut tunnel: Tunnel = tunnel_over(near, far, both).await;
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        let (near, far) = tunnel.visit().await;
        exchange(near, &mut tasks);
        exchange(far, &mut tasks);
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
}
