//! A visitor who downloads, whatever happens to the line meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::local::{GIVE, PERIOD, piece};
use super::traffic::Entrance;
use crate::visitor::Visitor;

/// A download under way. Dropping it breaks it off.
#[derive(Debug)]
pub struct Download {
    received: Arc<AtomicU64>,
    running: JoinHandle<io::Result<Duration>>,
}

impl Download {
    /// So many bytes. Some of them have come when this is done.
    pub async fn start(entrance: &Entrance, bytes: u64) -> io::Result<Self> {
        let mut visitor = entrance.visit().await?;
        visitor.write_u8(GIVE).await?;
        visitor.write_u64(bytes).await?;
        let mut first = vec![0; PERIOD];
        let got = visitor.read(&mut first).await?;
        first.truncate(got);
        let received = Arc::default();
        let running = tokio::spawn(receive(visitor, first, bytes, Arc::clone(&received)));
        Ok(Self { received, running })
    }

    /// How many bytes have come.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or badly.
    pub fn is_over(&self) -> bool {
        self.running.is_finished()
    }

    /// Waits for the end. Gives the longest pause between two pieces; an error if it was cut, or if
    /// these were not the bytes that it asked for.
    pub async fn ends(mut self) -> io::Result<Duration> {
        (&mut self.running).await.expect("no panic")
    }
}

async fn receive(
    mut visitor: Visitor,
    first: Vec<u8>,
    bytes: u64,
    received: Arc<AtomicU64>,
) -> io::Result<Duration> {
    // Twice, so that what is expected next is always a slice of it.
    let expected = piece().repeat(2);
    let (mut buffer, mut pause, mut last) = (first, Duration::ZERO, Instant::now());
    while !buffer.is_empty() {
        pause = pause.max(last.elapsed());
        last = Instant::now();
        let so_far = received.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let at = usize::try_from(so_far % PERIOD as u64).expect("less than a period");
        if buffer != expected[at..at + buffer.len()] {
            return Err(io::Error::other("other bytes than asked for"));
        }
        buffer.resize(PERIOD, 0);
        let got = visitor.read(&mut buffer).await?;
        buffer.truncate(got);
    }
    match received.load(Ordering::Relaxed) {
        all if all == bytes => Ok(pause),
        some => Err(io::Error::other(format!("{some} of {bytes} bytes"))),
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.running.abort();
    }
}
