//! Who may shake hands when: agents that all come at once, after an outage, take turns.
//!
//! A handshake costs signatures, whoever it is with. So many may begin in a second, and some more at
//! once when few have for a while: a bucket of tokens. An attempt that finds none gets its turn, which it
//! waits for before anything is computed: to the agent the handshake is only slower. Who would have to
//! wait for too long is turned away.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::config::Config;
use crate::log_limit::LogLimit;

/// The share of a full line that must be gone before it takes anybody again. An agent's first flight is
/// two packets: when the first was turned away, the second looks like one more attempt, and must not
/// find the place that has just become free.
const ROOM: u32 = 20;

/// The turns of all attempts.
#[derive(Debug)]
pub(crate) struct Turns {
    bucket: Mutex<Bucket>,
    turned_away: LogLimit,
}

/// When an attempt may begin. Dropped, it is used up all the same; see [`Turns::give_back`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Nothing if that was at once.
    at: Option<Instant>,
}

impl Turn {
    /// Waits for it. Cancel safe.
    pub(crate) async fn comes(self) {
        if let Some(at) = self.at {
            sleep_until(at).await;
        }
    }
}

impl Turns {
    /// With the rates of `config`, and a full bucket.
    pub(crate) fn new(config: &Config) -> Self {
        let interval = Duration::from_secs(1) / config.handshakes_per_second.get();
        let bucket = Bucket {
            interval,
            burst: interval * config.handshake_burst.get(),
            patience: config.timeouts.handshake_turn,
            full_at: Instant::now(),
            is_closed: false,
        };
        Self {
            bucket: Mutex::new(bucket),
            turned_away: LogLimit::default(),
        }
    }

    /// The next turn. None if it comes too late: the attempt must be turned away, and the log says so now
    /// and then.
    pub(crate) fn take(&self) -> Option<Turn> {
        let now = Instant::now();
        let Some(wait) = self.bucket().take(now) else {
            self.tell();
            return None;
        };
        let at = (!wait.is_zero()).then(|| now + wait);
        Some(Turn { at })
    }

    /// A turn that was taken is not needed.
    pub(crate) fn give_back(&self) {
        self.bucket().give_back();
    }

    /// Whether so few tokens are left that only peers who have shown that they receive at their address
    /// may have one.
    pub(crate) fn are_scarce(&self) -> bool {
        self.bucket().is_scarce(Instant::now())
    }

    fn tell(&self) {
        let text =
            "agents come faster than they can be let in; some are turned away, and come again";
        match self.turned_away.ask() {
            Some(0) => warn!("{text}"),
            Some(more) => warn!("{text} (and {more} more)"),
            None => debug!("{text}"),
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bucket of tokens, told by when it will be full again: later by one interval for each token that was
/// taken, those of attempts that still wait included.
#[derive(Debug)]
struct Bucket {
    /// Time for one more token.
    interval: Duration,
    /// Time from empty to full.
    burst: Duration,
    /// The longest wait.
    patience: Duration,
    full_at: Instant,
    /// Whether the last was turned away.
    is_closed: bool,
}

impl Bucket {
    /// Takes a token, and says how long to wait for it; none is taken if that is too long, nor then until
    /// the line has become a little shorter.
    fn take(&mut self, now: Instant) -> Option<Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        let wait = (full_at - now).saturating_sub(self.burst);
        let patience = match self.is_closed {
            true => self.patience - self.patience / ROOM,
            false => self.patience,
        };
        self.is_closed = wait > patience;
        if self.is_closed {
            return None;
        }
        self.full_at = full_at;
        Some(wait)
    }

    /// One that was taken is here again. Those who wait keep their turns; the next gets it.
    fn give_back(&mut self) {
        self.full_at -= self.interval;
    }

    /// Whether less than half is left.
    fn is_scarce(&self, now: Instant) -> bool {
        self.full_at.saturating_duration_since(now) > self.burst / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);
    const BURST: u32 = 500;
    const PATIENCE: Duration = Duration::from_secs(2);

    fn bucket(now: Instant) -> Bucket {
        Bucket {
            interval: INTERVAL,
            burst: INTERVAL * BURST,
            patience: PATIENCE,
            full_at: now,
            is_closed: false,
        }
    }

    fn drain(bucket: &mut Bucket, now: Instant) -> Vec<Duration> {
        std::iter::from_fn(|| bucket.take(now)).collect()
    }

    #[test]
    fn a_burst_passes_at_once_then_one_an_interval_and_who_would_wait_too_long_does_not_wait() {
        let now = Instant::now();
        let waits = drain(&mut bucket(now), now);
        let (at_once, later) = waits.split_at(BURST as usize);
        assert!(at_once.iter().all(Duration::is_zero));
        let line: Vec<_> = (1..=400).map(|place| INTERVAL * place).collect();
        assert_eq!(later, line);
    }

    #[test]
    fn a_full_line_takes_nobody_until_some_have_had_their_turn() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        drain(&mut bucket, now);
        let room = PATIENCE / ROOM;
        assert_eq!(bucket.take(now + room), None);
        let later = now + room + INTERVAL;
        assert_eq!(bucket.take(later), Some(PATIENCE - room));
        assert_eq!(drain(&mut bucket, later).last(), Some(&PATIENCE));
    }

    #[test]
    fn the_bucket_fills_again_but_not_beyond_its_rim() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        drain(&mut bucket, now);
        let waits = drain(&mut bucket, now + Duration::from_secs(3600));
        let at_once = waits.iter().filter(|wait| wait.is_zero()).count();
        assert_eq!(at_once, BURST as usize);
    }

    #[test]
    fn a_turn_that_is_given_back_is_the_next_ones() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        let next = bucket.take(now);
        bucket.give_back();
        assert_eq!(bucket.take(now), next);
        let waits = drain(&mut bucket, now);
        bucket.give_back();
        bucket.is_closed = false;
        assert_eq!(bucket.take(now), waits.last().copied());
    }

    #[test]
    fn tokens_are_scarce_from_the_middle_of_the_bucket_on() {
        let now = Instant::now();
        let mut bucket = bucket(now);
        for _ in 0..BURST / 2 {
            assert!(!bucket.is_scarce(now));
            bucket.take(now);
        }
        assert!(!bucket.is_scarce(now));
        bucket.take(now);
        assert!(bucket.is_scarce(now));
        assert!(!bucket.is_scarce(now + INTERVAL));
    }

    #[test]
    fn without_patience_nobody_waits() {
        let now = Instant::now();
        let mut bucket = Bucket {
            patience: Duration::ZERO,
            ..bucket(now)
        };
        assert_eq!(drain(&mut bucket, now).len(), BURST as usize);
    }

    proptest! {
        #[test]
        fn in_no_second_more_begin_than_the_burst_and_the_rate(pauses in prop::collection::vec(0_u64..20, 1..3000)) {
            let (start, mut now) = (Instant::now(), Instant::now());
            let (mut bucket, mut begun) = (bucket(start), vec![]);
            for pause in pauses {
                now += Duration::from_millis(pause);
                begun.extend(bucket.take(now).map(|wait| now + wait));
            }
            begun.sort();
            let most = (BURST + 200) as usize + 1;
            for window in begun.windows(most + 1) {
                prop_assert!(window[most] - window[0] > Duration::from_secs(1));
            }
        }
    }
}
