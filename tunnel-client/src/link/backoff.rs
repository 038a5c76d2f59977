//! How long to wait before the next attempt: full jitter, and no end to trying.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Redial;

/// How long after a tunnel last served an outage is young.
const YOUNG: Duration = Duration::from_secs(15 * 60);

/// The waits of one link.
#[derive(Debug)]
pub(crate) struct Backoff {
    redial: Redial,
    attempts: u32,
    last_served: Instant,
}

impl Backoff {
    /// Begins at `now`, as if a tunnel had just served.
    pub(crate) fn new(redial: Redial, now: Instant) -> Self {
        Self {
            redial,
            attempts: 0,
            last_served: now,
        }
    }

    /// A tunnel served until `now`: the next outage begins afresh.
    pub(crate) fn served(&mut self, now: Instant) {
        *self = Self::new(self.redial, now);
    }

    /// What kept us from the relay may be gone: the waits begin anew.
    pub(crate) fn begins_anew(&mut self) {
        self.attempts = 0;
    }

    /// The wait before the next attempt; `share` is drawn evenly from 0 to 1.
    pub(crate) fn next(&mut self, now: Instant, share: f64) -> Duration {
        let young = now.duration_since(self.last_served) < YOUNG;
        let cap = if young {
            self.redial.longest_young
        } else {
            self.redial.longest
        };
        let doubled = 2_u32.saturating_pow(self.attempts);
        let doubled = self.redial.first.saturating_mul(doubled);
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(cap).mul_f64(share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn longest_now(backoff: &mut Backoff, now: Instant) -> u128 {
        backoff.next(now, 1.0).as_millis()
    }

    #[test]
    fn the_longest_waits_double_to_the_cap_and_grow_when_the_outage_is_old() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Redial::default(), start);
        let mut longest = |now| longest_now(&mut backoff, now);
        let young: Vec<_> = (0..6).map(|_| longest(start)).collect();
        assert_eq!(young, [500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(longest(start + YOUNG), 30_000);
        backoff.served(start + YOUNG);
        assert_eq!(longest_now(&mut backoff, start + YOUNG), 500);
    }

    #[test]
    fn when_something_has_happened_to_this_host_the_waits_begin_anew_and_the_outage_stays_old() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Redial::default(), start);
        let waits = |backoff: &mut Backoff| [0; 8].map(|_| longest_now(backoff, start + YOUNG));
        let old = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
        assert_eq!(waits(&mut backoff), old);
        backoff.begins_anew();
        assert_eq!(waits(&mut backoff), old);
    }

    proptest! {
        #[test]
        fn a_wait_is_anywhere_between_nothing_and_the_cap(attempts in 0..10_000_u32, share in 0.0..=1.0) {
            let start = Instant::now();
            let redial = Redial::default();
            let mut backoff = Backoff { redial, attempts, last_served: start };
            prop_assert!(backoff.next(start, share) <= redial.longest_young);
        }
    }
}
