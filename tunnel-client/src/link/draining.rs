//! A relay that is about to stop, as the tunnels of a pool hear it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The least time over which the wait is drawn: the relay, or the one in its place, is just starting.
const MIN_SPREAD: Duration = Duration::from_millis(500);
/// However long the relay wants its agents to take: nobody serves ours meanwhile.
const MAX_SPREAD: Duration = Duration::from_secs(10 * 60);

/// Whether the relay has said that it is about to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Draining(Arc<watch::Sender<Option<Spread>>>);

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
    /// One of the tunnels has heard it.
    pub(super) fn is_told(&self, spread: Spread) {
        self.0.send_replace(Some(spread));
    }

    /// What the relay said, if it did.
    pub(super) fn spread(&self) -> Option<Spread> {
        *self.0.borrow()
    }

    /// Ready when the relay has said it. Cancel safe.
    pub(super) async fn told(&self) -> Spread {
        let mut heard = self.0.subscribe();
        let told = heard.wait_for(Option::is_some).await.ok();
        match told.and_then(|spread| *spread) {
            Some(spread) => spread,
            // Whoever could say it is here as long as we are.
            None => std::future::pending().await,
        }
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

    #[tokio::test]
    async fn whoever_comes_later_hears_it_too() {
        let draining = Draining::default();
        let told = tokio::time::timeout(Duration::ZERO, draining.told());
        assert!(told.await.is_err());
        let spread = Spread::of_milliseconds(7_000);
        draining.clone().is_told(spread);
        assert_eq!(draining.told().await, spread);
        assert_eq!(draining.spread(), Some(spread));
    }
}
