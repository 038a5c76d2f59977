//! What a splice is given beside its two ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::buffer::BufferPool;
use crate::budget::TunnelBudget;

/// How long a splice waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Nothing moves either way: 1 h keeps an idle WebSocket, and no leak for ever.
    pub idle: Duration,
    /// One direction has ended and nothing moves in the other: 60 s.
    pub half_closed: Duration,
    /// A sink takes next to nothing: after 5 s the memory behind it is booked as stalled.
    pub stalled: Duration,
    /// A sink takes nothing: after 10 min the splice ends, whether memory is short or not.
    pub stalled_max: Duration,
    /// One side has broken, or has all it needs: what the other still sends has 5 s.
    pub linger: Duration,
    /// One side has broken: the other is reset so much later than its last byte went out, lest the
    /// reset overtakes it. 250 ms, at each end of the tunnel.
    pub arrival: Duration,
    /// How often a side that is not being read is asked whether it has broken: 500 ms.
    pub probe: Duration,
    /// Where a splice is asked to close when it is idle, nothing has moved for so long: 2 s, more than
    /// a page leaves between two of its requests.
    pub half_idle: Duration,
    /// The second end must have sent its first byte by then; `None`: whenever it likes.
    pub first_answer: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            half_closed: Duration::from_secs(60),
            stalled: Duration::from_secs(5),
            stalled_max: Duration::from_secs(600),
            linger: Duration::from_secs(5),
            arrival: Duration::from_millis(250),
            probe: Duration::from_millis(500),
            half_idle: Duration::from_secs(2),
            first_answer: None,
        }
    }
}

/// What can be told from the bytes that a splice moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// They are what is said: when the last byte went to the visitor, he has his answer.
    Clear,
    /// They are TLS of others, where some go to the visitor while he waits for his first answer.
    Opaque,
}

/// Bytes moved so far, to be read while the splice runs.
#[derive(Debug, Default)]
pub struct Meter {
    a_to_b: AtomicU64,
    b_to_a: AtomicU64,
}

impl Meter {
    pub(super) fn set(&self, a_to_b: u64, b_to_a: u64) {
        self.a_to_b.store(a_to_b, Ordering::Relaxed);
        self.b_to_a.store(b_to_a, Ordering::Relaxed);
    }

    /// Bytes that the second end has taken from the first.
    pub fn a_to_b(&self) -> u64 {
        self.a_to_b.load(Ordering::Relaxed)
    }

    /// Bytes that the first end has taken from the second.
    pub fn b_to_a(&self) -> u64 {
        self.b_to_a.load(Ordering::Relaxed)
    }
}

/// What a splice is given beside its ends.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where buffers come from.
    pub pool: BufferPool,
    /// Whose memory stalled bytes are.
    pub budget: TunnelBudget,
    /// How long it waits. Shared: thousands of splices wait alike.
    pub timeouts: Arc<Timeouts>,
    /// How long from now on it waits for the first answer: what is left of [`Timeouts::first_answer`], which it does
    /// not look at.
    pub first_answer: Option<Duration>,
    /// Where it counts.
    pub meter: Arc<Meter>,
}
