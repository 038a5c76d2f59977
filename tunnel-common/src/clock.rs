//! Wall-clock time as a value that is handed in.
//!
//! Durations and deadlines run on tokio's clock, which tests can pause. What needs the date -
//! certificate validity, today - asks a [`Clock`], so that a test can be in another year.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Where the date comes from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that asks `now` each time.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time since the Unix epoch; zero for a clock that stands before it.
    pub fn since_epoch(&self) -> Duration {
        (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.since_epoch()).finish()
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_epoch()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_may_be_in_another_year() {
        let clock = Clock::from_fn(|| UNIX_EPOCH + Duration::from_secs(1_000));
        assert_eq!(clock.since_epoch().as_secs(), 1_000);
        assert_eq!(clock.current_time().map(|t| t.as_secs()), Some(1_000));
    }
}
