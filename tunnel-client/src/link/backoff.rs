//! How long to wait before the next attempt: full jitter, and no end to trying.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait is at most this.
const BASE: Duration = Duration::from_millis(500);
/// The longest wait while an outage is young: a relay that restarts is found again at once.
const CAP_YOUNG: Duration = Duration::from_secs(4);
/// The longest wait later: a relay that is gone for days is not pestered.
const CAP_OLD: Duration = Duration::from_secs(30);
/// How long after a tunnel last served an outage is young.
const YOUNG: Duration = Duration::from_secs(15 * 60);

/// The waits of one link.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    last_served: Instant,
}

impl Backoff {
    /// Begins at `now`, as if a tunnel had just served.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            attempts: 0,
            last_served: now,
        }
    }

    /// A tunnel served until `now`: the next outage begins afresh.
    pub(crate) fn served(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The wait before the next attempt; `share` is drawn evenly from 0 to 1.
    pub(crate) fn next(&mut self, now: Instant, share: f64) -> Duration {
        let young = now.duration_since(self.last_served) < YOUNG;
        let cap = if young { CAP_YOUNG } else { CAP_OLD };
        let doubled = BASE.saturating_mul(2_u32.saturating_pow(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(cap).mul_f64(share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_waits_double_to_the_cap_and_grow_when_the_outage_is_old() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start);
        let mut longest = |now| backoff.next(now, 1.0).as_millis();
        let young: Vec<_> = (0..6).map(|_| longest(start)).collect();
        assert_eq!(young, [500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(longest(start + YOUNG), 30_000);
        backoff.served(start + YOUNG);
        assert_eq!(backoff.next(start + YOUNG, 1.0), BASE);
    }

    proptest! {
        #[test]
        fn a_wait_is_anywhere_between_nothing_and_the_cap(attempts in 0..10_000_u32, share in 0.0..=1.0) {
            let start = Instant::now();
            let mut backoff = Backoff { attempts, last_served: start };
            prop_assert!(backoff.next(start, share) <= CAP_YOUNG);
        }
    }
}
