//! Keeps strangers from filling the log: some lines at once, then one in a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines that may come at once.
const BURST: u32 = 5;
/// After that, one line in this time.
const PAUSE: Duration = Duration::from_secs(30);

/// The limit of one kind of line.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Spent>);

#[derive(Debug, Default)]
struct Spent {
    /// Lines that were said and not yet paid by a pause.
    lines: u32,
    /// Up to when pauses have been counted.
    since: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line may be said now, and if so how many were suppressed since the last.
    pub(crate) fn ask(&self) -> Option<u64> {
        self.ask_at(Instant::now())
    }

    fn ask_at(&self, now: Instant) -> Option<u64> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *spent.since.get_or_insert(now);
        let pauses = (now - since).as_secs() / PAUSE.as_secs();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        if pauses > 0 {
            spent.lines = spent.lines.saturating_sub(pauses);
            spent.since = Some(if spent.lines == 0 {
                now
            } else {
                since + PAUSE * pauses
            });
        }
        if spent.lines == BURST {
            spent.suppressed += 1;
            return None;
        }
        if spent.lines == 0 {
            spent.since = Some(now);
        }
        spent.lines += 1;
        Some(std::mem::take(&mut spent.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_in_a_while_and_what_was_suppressed_is_counted() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let said = |after: Duration| limit.ask_at(start + after);
        for _ in 0..BURST {
            assert_eq!(said(Duration::ZERO), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(said(Duration::from_secs(29)), None);
        }
        assert_eq!(said(PAUSE), Some(7));
        assert_eq!(said(PAUSE), None);
        assert_eq!(said(PAUSE * 2), Some(1));
        let much_later = PAUSE * 100;
        for _ in 0..BURST {
            assert_eq!(said(much_later), Some(0));
        }
        assert_eq!(said(much_later), None);
    }
}
