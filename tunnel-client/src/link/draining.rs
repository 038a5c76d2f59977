//! A relay that is about to stop, as the tunnels of a pool hear it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The least time over which the wait is drawn: the relay, or the one in its place, is just starting.
const MIN_SPREAD: Duration = Duration::from_millis(500);
/// However long the relay wants its agents to take: nobody serves ours meanwhile.
const MAX_SPREAD: Duration = Duration::from_secs(10 * 60);

/// Whether the relay has said that it is about to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Draining(Arc<watch::Sender<Option<Told>>>);

/// What the relay has said, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    spread: Spread,
    /// When to look for another relay: drawn once, and kept when the relay ends before.
    look_at: Instant,
    has_looked: bool,
}

/// The time over which the relay wants its agents to spread their reconnecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread(Duration);

impl Spread {
    /// As the relay says it.
    pub(super) fn of_milliseconds(spread: u64) -> Self {
        Self(Duration::from_millis(spread).clamp(MIN_SPREAD, MAX_SPREAD))
    }

    /// How long to wait before the next dial; `share` is drawn evenly from 0 to 1.
    pub(super) fn wait(self, share: f64) -> Duration {
        self.0.mul_f64(share.clamp(0.0, 1.0))
    }
}

impl Draining {
    /// One of the tunnels has heard it. The first time counts; `share` is drawn evenly from 0 to 1.
    pub(super) fn is_told(&self, spread: Spread, share: f64) {
        self.0.send_if_modified(|told| {
            let is_news = told.is_none();
            told.get_or_insert(Told {
                spread,
                look_at: Instant::now() + spread.wait(share),
                has_looked: false,
            });
            is_news
        });
    }

    /// When to look for another relay. Ready when this one has said that it is about to stop. Cancel safe.
    pub(super) async fn told(&self) -> Instant {
        let mut heard = self.0.subscribe();
        let told = heard.wait_for(Option::is_some).await.ok();
        match told.and_then(|told| *told) {
            Some(told) => told.look_at,
            // Whoever could say it is here as long as we are.
            None => std::future::pending().await,
        }
    }

    /// Another relay is looked for. If that comes to nothing, not `before` that is it done again.
    pub(super) fn looks(&self, before: Instant) {
        self.0.send_if_modified(|told| {
            if let Some(told) = told {
                told.has_looked = true;
                told.look_at = told.look_at.max(before);
            }
            false
        });
    }

    /// How long to wait before the next dial when the relay has ended, if it said that it would: what is
    /// left of the wait, or one more, since the relay itself comes back.
    pub(super) fn wait(&self, now: Instant, share: f64) -> Option<Duration> {
        let told = *self.0.borrow();
        told.map(|told| match told.has_looked {
            false => told.look_at.saturating_duration_since(now),
            true => told.spread.wait(share),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_anywhere_in_the_spread_but_half_a_second_for_one_agent_and_ten_minutes_for_millions()
     {
        let longest = |spread| Spread::of_milliseconds(spread).wait(1.0);
        assert_eq!(longest(0), Duration::from_millis(500));
        assert_eq!(longest(10_000), Duration::from_secs(10));
        assert_eq!(longest(u64::MAX), Duration::from_secs(600));
        let spread = Spread::of_milliseconds(10_000);
        assert_eq!(spread.wait(0.0), Duration::ZERO);
        assert_eq!(spread.wait(0.5), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_later_hears_it_too_and_the_wait_is_drawn_once() {
        let (draining, now) = (Draining::default(), Instant::now());
        let told = tokio::time::timeout(Duration::ZERO, draining.told());
        assert!(told.await.is_err());
        assert_eq!(draining.wait(now, 1.0), None);
        let (spread, seconds) = (Spread::of_milliseconds(8_000), Duration::from_secs);
        draining.clone().is_told(spread, 0.5);
        draining.is_told(spread, 1.0);
        assert_eq!(draining.told().await, now + seconds(4));
        assert_eq!(draining.wait(now + seconds(1), 1.0), Some(seconds(3)));
        draining.looks(now + seconds(9));
        assert_eq!(draining.told().await, now + seconds(9));
        assert_eq!(draining.wait(now, 1.0), Some(seconds(8)));
    }
}
