//! Wall-clock time as a value that is handed in.
//!
//! Durations and deadlines run on tokio's clock, which tests can pause. What needs the date -
//! certificate validity, today - asks a [`Clock`], so that a test can be in another year.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

    /// The date.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// The time since the Unix epoch; zero for a clock that stands before it.
    pub fn since_epoch(&self) -> Duration {
        self.now().duration_since(UNIX_EPOCH).unwrap_or_default()
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

/// A time as people and programs read it: RFC 3339, in UTC, to the second. One beyond the calendar is told in
/// seconds.
pub fn date(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    let told = OffsetDateTime::from_unix_timestamp(seconds);
    let told = told.ok().and_then(|told| told.format(&Rfc3339).ok());
    told.unwrap_or_else(|| format!("{seconds} s after 1970"))
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

    #[test]
    fn a_date_is_told_in_utc() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        assert_eq!(date(time), "1994-11-06T08:49:37Z");
        let never = UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert!(date(never).ends_with("s after 1970"));
    }
}
