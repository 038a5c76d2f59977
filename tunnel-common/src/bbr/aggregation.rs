//! How far acknowledgements come in lumps: radio links and busy hosts gather them.
//!
//! What arrives in a lump beyond the path's rate must be in the window as well, or the path stands still until
//! the next lump (the draft's extra_acked).

use std::time::Instant;

/// The largest lump counts for so many rounds, and as many more: Linux counts alike. A pause of our own looks like
/// one as well, and until it is forgotten its bytes are a queue.
const ROUNDS: u8 = 5;

/// The lumps of one path.
#[derive(Clone, Debug)]
pub(super) struct Aggregation {
    /// Since then more was acknowledged than the path's rate explains.
    since: Instant,
    acked: u64,
    /// The largest lump of these rounds, and of those before.
    largest: u64,
    before: u64,
    rounds: u8,
}

impl Aggregation {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            acked: 0,
            largest: 0,
            before: 0,
            rounds: 0,
        }
    }

    /// These bytes were acknowledged together, on a path of this rate, in bytes by the second.
    pub(super) fn acked(&mut self, now: Instant, bytes: u64, rate: f64) {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        let mut explained = (rate * elapsed) as u64;
        if self.acked <= explained {
            (self.since, self.acked, explained) = (now, 0, 0);
        }
        self.acked += bytes;
        self.largest = self.largest.max(self.acked - explained);
    }

    pub(super) fn round_ended(&mut self) {
        self.rounds += 1;
        if self.rounds == ROUNDS {
            self.rounds = 0;
            self.before = std::mem::take(&mut self.largest);
        }
    }

    /// What the window must hold for them.
    pub(super) fn extra(&self) -> u64 {
        self.largest.max(self.before)
    }
}
