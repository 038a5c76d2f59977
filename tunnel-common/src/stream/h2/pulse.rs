//! When to ask the peer whether it lives, and what its answers tell about the path: a pure function
//! of what has come, and when.
//!
//! ```text
//!             time for it, or half a window has come                   its answer
//!   Resting ──────────────────────────────────────────▶ Asked ───────────────────▶ Resting
//!                                                          │ no byte for so long
//!                                                          └──────────────────────▶ dead
//! ```
//!
//! Every byte proves life, not only the answer: that may wait behind all that the peer sends.
//!
//! What comes between a question and its answer, by the time that took and the shortest time that any
//! took, is what the path holds in one round trip. A stream's window is to be four times that, or it is
//! what slows the stream down: while a lost packet is sent again, nothing behind it is read, no credit goes
//! out, and a window of what the path holds is used in two or three round trips instead of one. The shortest
//! time, because a question that waited in a queue says how long the queue is: windows that grew by that
//! would only make it longer.

use std::time::Duration;

use tokio::time::Instant;

use crate::h2::{MAX_STREAM_WINDOW, STREAM_WINDOW};

/// How many times what the path holds a stream's window should be.
const WINDOW_GAIN: u64 = 4;
/// How long to leave a path alone that was measured and found well served.
const MEASURED_FOR: Duration = Duration::from_millis(100);
/// In this time the shortest round trip that is remembered doubles: the way may have become longer.
const FORGETS_WITHIN: Duration = Duration::from_secs(60);

/// The state of one end of a connection.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    within: Duration,
    phase: Phase,
    /// Bytes that have come, in all.
    received: u64,
    /// When the last one came, or the peer showed otherwise that it is there.
    last_byte: Instant,
    shortest: Option<Shortest>,
    /// What a stream should be able to hold.
    window: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Resting {
        since: Instant,
        /// What had been received by then.
        received: u64,
        /// From when on the path may be measured.
        measured_from: Instant,
    },
    Asked {
        since: Instant,
        received: u64,
    },
}

/// The shortest round trip.
#[derive(Clone, Copy, Debug)]
struct Shortest {
    time: Duration,
    seen: Instant,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask the peer, and say so by [`Pulse::asked`].
    Ask,
    /// Nothing before then, unless something comes.
    Wait(Instant),
    /// The peer is gone.
    Dead,
}

impl Pulse {
    /// Of a connection that was made just now.
    pub(super) fn new(every: Duration, within: Duration, now: Instant) -> Self {
        Self {
            every,
            within,
            // Asked at once: while nothing is in the way, the answer tells how long the way is.
            phase: Phase::Resting {
                since: now.checked_sub(every).unwrap_or(now),
                received: 0,
                measured_from: now,
            },
            received: 0,
            last_byte: now,
            shortest: None,
            window: STREAM_WINDOW,
        }
    }

    /// So many bytes have come by now, in all.
    pub(super) fn received(&mut self, bytes: u64, now: Instant) {
        if bytes != self.received {
            self.received = bytes;
            self.last_byte = now;
        }
    }

    /// The peer has shown otherwise than by a byte that it is there.
    pub(super) fn lives(&mut self, now: Instant) {
        self.last_byte = now;
    }

    /// What to do now.
    pub(super) fn next(&self, now: Instant) -> Next {
        match self.phase {
            Phase::Asked { since, .. } => {
                let dead = since.max(self.last_byte) + self.within;
                if now >= dead {
                    Next::Dead
                } else {
                    Next::Wait(dead)
                }
            }
            Phase::Resting {
                since,
                received,
                measured_from,
            } => {
                let is_busy = self.received - received >= u64::from(self.window) / 2;
                let at = if is_busy && self.window < MAX_STREAM_WINDOW {
                    measured_from.min(since + self.every)
                } else {
                    since + self.every
                };
                if now >= at { Next::Ask } else { Next::Wait(at) }
            }
        }
    }

    /// The peer has been asked.
    pub(super) fn asked(&mut self, now: Instant) {
        let received = self.received;
        self.phase = Phase::Asked {
            since: now,
            received,
        };
    }

    /// The peer has answered.
    pub(super) fn answered(&mut self, now: Instant) {
        let Phase::Asked { since, received } = self.phase else {
            return;
        };
        let took = now.duration_since(since);
        let shortest = self.shorten(took, now);
        let held = path_holds(self.received - received, took, shortest);
        let has_grown = self.grow(held);
        self.phase = Phase::Resting {
            since: now,
            received: self.received,
            // What has grown shows a round trip later.
            measured_from: now + if has_grown { took } else { MEASURED_FOR },
        };
    }

    /// What a stream should be able to hold.
    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Begins anew with the least window.
    pub(super) fn shrink(&mut self) {
        self.window = STREAM_WINDOW;
    }

    fn shorten(&mut self, took: Duration, now: Instant) -> Duration {
        let known = self.shortest.map(|shortest| {
            let age = now.duration_since(shortest.seen).as_secs_f64();
            let longer = 1.0 + age / FORGETS_WITHIN.as_secs_f64();
            shortest.time.mul_f64(longer)
        });
        let time = known.map_or(took, |known| known.min(took));
        self.shortest = Some(Shortest { time, seen: now });
        time
    }

    fn grow(&mut self, held: u64) -> bool {
        let wanted = held.saturating_mul(WINDOW_GAIN);
        let wanted = wanted.checked_next_power_of_two().unwrap_or(wanted);
        let wanted = u32::try_from(wanted).unwrap_or(MAX_STREAM_WINDOW);
        let before = self.window;
        self.window = wanted.clamp(before, MAX_STREAM_WINDOW);
        self.window > before
    }
}

/// How many bytes a path holds in a round trip of `shortest`, that let so many pass in the time `took`.
fn path_holds(bytes: u64, took: Duration, shortest: Duration) -> u64 {
    let nanos = took.as_nanos().max(1);
    let held = u128::from(bytes) * shortest.as_nanos() / nanos;
    u64::try_from(held).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
