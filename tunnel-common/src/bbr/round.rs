//! One round: from now until something is acknowledged that was sent after now.

use std::time::{Duration, Instant};

/// A round that loses more than one packet in so many, and more than some, is no accident.
const LOSS_LIMIT: u64 = 6;
const LOSS_PACKETS: u64 = 8;

/// A round that runs.
#[derive(Clone, Debug)]
pub(super) struct Round {
    started: Instant,
    delivered: u64,
    lost: u64,
    /// Its shortest round trip so far.
    rtt: Option<Duration>,
    /// Some of the time there was nothing to send.
    is_idle: bool,
    /// Something is acknowledged that was sent in it.
    is_over: bool,
    batch: Batch,
}

/// Acknowledgements that came together.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    bytes: u64,
    rtt: Option<Duration>,
}

/// What a round has shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Delivered bytes by the second.
    pub(super) rate: f64,
    /// The shortest round trip.
    pub(super) rtt: Duration,
    /// Some of the time there was nothing to send: the path may carry more.
    pub(super) is_idle: bool,
    /// It lost so much that it was more than the path carries.
    pub(super) is_lossy: bool,
}

impl Round {
    /// Begins one.
    pub(super) fn new(now: Instant, is_idle: bool) -> Self {
        Self {
            started: now,
            delivered: 0,
            lost: 0,
            rtt: None,
            is_idle,
            is_over: false,
            batch: Batch::default(),
        }
    }

    pub(super) fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, is_idle: bool) {
        let rtt = now.saturating_duration_since(sent);
        let shortest = |known: Option<Duration>| Some(known.map_or(rtt, |known| known.min(rtt)));
        self.delivered += bytes;
        self.rtt = shortest(self.rtt);
        self.batch.bytes += bytes;
        self.batch.rtt = shortest(self.batch.rtt);
        self.is_idle |= is_idle;
        self.is_over |= sent >= self.started;
    }

    pub(super) fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Whether it has lost so much that it is more than the path carries.
    pub(super) fn is_lossy(&self, packet: u64) -> bool {
        self.lost > LOSS_PACKETS * packet && self.lost * LOSS_LIMIT > self.lost + self.delivered
    }

    /// The shortest round trip of the acknowledgements that came together; `None` before any came.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.batch.rtt
    }

    /// What came together; the next begins with nothing.
    pub(super) fn take_batch(&mut self) -> u64 {
        std::mem::take(&mut self.batch).bytes
    }

    /// What it has shown, if it is over; then the next begins. Packets have so many bytes.
    pub(super) fn end(&mut self, now: Instant, is_idle: bool, packet: u64) -> Option<Seen> {
        let elapsed = now.saturating_duration_since(self.started).as_secs_f64();
        if !self.is_over || elapsed == 0.0 {
            return None;
        }
        let ended = std::mem::replace(self, Self::new(now, is_idle));
        Some(Seen {
            is_lossy: ended.is_lossy(packet),
            rate: ended.delivered as f64 / elapsed,
            rtt: ended.rtt?,
            is_idle: ended.is_idle,
        })
    }
}
