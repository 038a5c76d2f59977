//! Who may shake hands when: agents that all come at once, after an outage, take turns.
//!
//! A handshake costs signatures, whoever it is with. So many may begin in a second, and some more at
//! once when few have for a while: a bucket of tokens. An attempt that finds none gets its turn, which it
//! waits for before anything is computed: to the agent the handshake is only slower. Who would have to
//! wait for too long is turned away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::Ipv6Net;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::config::Config;
use crate::log_limit::LogLimit;

/// The share of a full line that must be gone before it takes anybody again. An agent's first flight is
/// two packets: when the first was turned away, the second looks like one more attempt, and must not
/// find the place that has just become free.
const ROOM: u32 = 20;

/// While tokens are scarce one address gets no more than this share of them: a stranger who comes again
/// and again keeps no agent out.
const SHARE: u32 = 4;
/// The network that counts as one address over IPv6, where a host has as many as it likes.
const V6_PREFIX: u8 = 64;
/// Addresses whose share is remembered; those that have used next to nothing are forgotten first.
const MAX_SHARES: usize = 4096;

/// The turns of all attempts.
#[derive(Debug)]
pub(crate) struct Turns {
    buckets: Mutex<Buckets>,
    turned_away: LogLimit,
}

/// That of all together, and what each address has used of its share.
#[derive(Debug)]
struct Buckets {
    all: Bucket,
    shares: HashMap<IpAddr, Bucket>,
}

impl Buckets {
    /// As [`Bucket::take`], for this address.
    fn take(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let network = network(address);
        let is_scarce = self.all.is_scarce(now) && !address.is_loopback();
        if is_scarce && self.share(network).is_empty(now) {
            return None;
        }
        let wait = self.all.take(now)?;
        self.share(network).use_up(now);
        if self.shares.len() > MAX_SHARES {
            self.shares.retain(|_, share| share.full_at > now);
        }
        Some(wait)
    }

    fn share(&mut self, network: IpAddr) -> &mut Bucket {
        let of_all = &self.all;
        self.shares.entry(network).or_insert_with(|| Bucket {
            interval: of_all.interval * SHARE,
            // As many of its longer intervals as a share of the burst has tokens.
            burst: of_all.burst,
            patience: Duration::ZERO,
            full_at: of_all.full_at - of_all.burst,
            is_closed: false,
        })
    }

    fn give_back(&mut self, address: IpAddr) {
        self.all.give_back();
        if let Some(share) = self.shares.get_mut(&network(address)) {
            share.give_back();
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Net::new(v6, V6_PREFIX).map_or(address, |net| net.network().into()),
        v4 => v4,
    }
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
            buckets: Mutex::new(Buckets {
                all: bucket,
                shares: HashMap::new(),
            }),
            turned_away: LogLimit::default(),
        }
    }

    /// The next turn, for an attempt from this address. None if it comes too late: the attempt must be
    /// turned away, and the log says so now and then.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Turn> {
        let now = Instant::now();
        let Some(wait) = self.buckets().take(address, now) else {
            self.tell();
            return None;
        };
        let at = (!wait.is_zero()).then(|| now + wait);
        Some(Turn { at })
    }

    /// A turn that was taken from this address is not needed.
    pub(crate) fn give_back(&self, address: IpAddr) {
        self.buckets().give_back(address);
    }

    /// Whether so few tokens are left that only peers who have shown that they receive at their address
    /// may have one.
    pub(crate) fn are_scarce(&self) -> bool {
        self.buckets().all.is_scarce(Instant::now())
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

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes a token, whether there is one or not.
    fn use_up(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// Whether none is left.
    fn is_empty(&self, now: Instant) -> bool {
        self.full_at.saturating_duration_since(now) + self.interval > self.burst
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
    fn one_address_gets_a_share_while_tokens_are_scarce_and_all_of_them_while_they_are_not() {
        let now = Instant::now();
        let mut buckets = Buckets {
            all: bucket(now),
            shares: HashMap::new(),
        };
        let [stranger, agent] = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().expect("an address"));
        let taken = |buckets: &mut Buckets, address, at| {
            let taking = std::iter::from_fn(|| buckets.take(address, at));
            taking.take(10_000).count()
        };
        // The first half is anybody's; then he has had more than his share.
        assert_eq!(taken(&mut buckets, stranger, now), BURST as usize / 2 + 1);
        assert_eq!(
            taken(&mut buckets, agent, now),
            BURST as usize / SHARE as usize
        );
        let mut now = now;
        for _ in 0..100 {
            now += Duration::from_millis(100);
            assert!(buckets.take(agent, now).is_some());
            assert!(
                taken(&mut buckets, stranger, now) <= 20,
                "all that came since"
            );
        }
        let v6 = ["2001:db8::1", "2001:db8::2:3"].map(|a| a.parse().expect("an address"));
        assert_eq!(network(v6[0]), network(v6[1]));
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
