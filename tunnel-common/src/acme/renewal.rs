//! When a certificate is to be renewed, and how long to wait after a failure. Pure: (dates, chance) → when.

use std::time::{Duration, SystemTime};

/// A share of its lifetime before its end at which a certificate is renewed: a third.
const LEFT_AT_RENEWAL: u32 = 3;
/// The most that chance may bring a renewal forward or put a retry off, as a share of the whole.
const JITTER: f64 = 0.1;
/// A share of its lifetime before its end at which a certificate is renewed whatever the authority says: a
/// tenth.
const LEFT_AT_LEAST: u32 = 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The first wait after a failure that the authority has counted. It allows five failed validations for a
/// name in an hour.
const FIRST_WAIT: Duration = Duration::from_secs(60 * 60);
/// The longest.
const LONGEST_WAIT: Duration = DAY;
/// The first wait where nobody has counted anything: somebody may be at work on it.
const FIRST_QUICK_WAIT: Duration = Duration::from_secs(10);
/// The longest of these.
const LONGEST_QUICK_WAIT: Duration = Duration::from_secs(10 * 60);

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
}

impl Validity {
    /// How long it is valid in all.
    pub fn lifetime(&self) -> Duration {
        let lifetime = self.not_after.duration_since(self.not_before);
        lifetime.unwrap_or_default()
    }

    /// How many whole days are left at `now`.
    pub fn days_left(&self, now: SystemTime) -> u64 {
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left.as_secs() / DAY.as_secs()
    }

    /// Whether it is over at `now`.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.not_after < now
    }
}

/// When the authority wants a certificate to be renewed (RFC 9773, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From when on.
    pub start: SystemTime,
    /// Until when.
    pub end: SystemTime,
}

/// When a certificate is to be renewed: as many `days` before its end as the user wants, else at some
/// moment of the authority's `window`, but not later than a tenth of its lifetime before its end, else when a
/// third of it is left. `luck`, from 0 to 1,
/// spreads those who began together.
///
/// More days than two thirds of the lifetime would be an order after the other: they count as two thirds.
pub fn due(validity: Validity, window: Option<Window>, days: Option<u32>, luck: f64) -> SystemTime {
    let lifetime = validity.lifetime();
    let before_end = |left: Duration| {
        let early = left.mul_f64(JITTER * luck);
        validity.not_after.checked_sub(left + early)
    };
    let third = lifetime / LEFT_AT_RENEWAL;
    let due = match (days, window) {
        (Some(days), _) => before_end((DAY * days).min(2 * third)),
        (None, Some(window)) => {
            let length = window.end.duration_since(window.start).unwrap_or_default();
            let wanted = window.start.checked_add(length.mul_f64(luck));
            let latest = validity.not_after.checked_sub(lifetime / LEFT_AT_LEAST);
            wanted
                .zip(latest)
                .map(|(wanted, latest)| wanted.min(latest))
                .or(latest)
        }
        (None, None) => before_end(third),
    };
    due.unwrap_or(validity.not_before)
}

/// How long to wait after so many failures in a row, the first being 1, if the authority asks for
/// `retry_after`. Never less than that; an authority that asks for nothing gets 1 h, doubling up to a day,
/// if it `counted` the failure, and 10 s, doubling up to 10 min, if it did not even see it.
pub fn wait(failures: u32, counted: bool, retry_after: Option<Duration>, luck: f64) -> Duration {
    let (first, longest) = match counted {
        true => (FIRST_WAIT, LONGEST_WAIT),
        false => (FIRST_QUICK_WAIT, LONGEST_QUICK_WAIT),
    };
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let wait = match retry_after {
        // It knows best, be it shorter or longer; but nobody is asked again at once.
        Some(retry_after) => retry_after.max(FIRST_QUICK_WAIT),
        None => doubled.min(longest),
    };
    wait.saturating_add(wait.mul_f64(JITTER * luck).min(FIRST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = FIRST_WAIT;

    fn day(days: u32) -> SystemTime {
        UNIX_EPOCH + DAY * days
    }

    fn valid_for(days: u32) -> Validity {
        Validity {
            not_before: day(100),
            not_after: day(100 + days),
        }
    }

    #[test]
    fn a_certificate_of_any_lifetime_is_renewed_when_a_third_of_it_is_left() {
        for (lifetime, due_on) in [(90, 160), (45, 130), (6, 104)] {
            assert_eq!(
                due(valid_for(lifetime), None, None, 0.0),
                day(100 + due_on - 100)
            );
        }
        // 64 days: 21 1/3 before the end.
        let sixty_four = due(valid_for(64), None, None, 0.0);
        assert_eq!(sixty_four, day(164) - DAY * 64 / 3);
        let early = due(valid_for(90), None, None, 1.0);
        assert_eq!(early, day(157), "at most a tenth of what is left earlier");
    }

    #[test]
    fn the_authoritys_window_comes_before_the_third_and_the_users_days_before_both() {
        let window = Some(Window {
            start: day(110),
            end: day(114),
        });
        assert_eq!(due(valid_for(90), window, None, 0.0), day(110));
        assert_eq!(due(valid_for(90), window, None, 0.5), day(112));
        assert_eq!(due(valid_for(90), window, Some(10), 0.0), day(180));
        let broken = Some(Window {
            start: day(114),
            end: day(110),
        });
        assert_eq!(due(valid_for(90), broken, None, 0.7), day(114));
        let late = Some(Window {
            start: day(300),
            end: day(301),
        });
        assert_eq!(
            due(valid_for(90), late, None, 0.0),
            day(181),
            "before its end"
        );
    }

    #[test]
    fn more_days_than_a_certificate_lives_do_not_order_without_a_pause() {
        assert_eq!(due(valid_for(6), None, Some(30), 0.0), day(102));
    }

    #[test]
    fn a_counted_failure_waits_an_hour_then_twice_as_long_up_to_a_day() {
        let waits = [1, 2, 3, 5, 6, 40].map(|failures| wait(failures, true, None, 0.0));
        assert_eq!(waits, [1, 2, 4, 16, 24, 24].map(|hours| HOUR * hours));
        assert_eq!(wait(1, true, None, 1.0), HOUR + HOUR / 10);
    }

    #[test]
    fn what_nobody_has_counted_is_tried_again_soon() {
        let waits = [1, 2, 6, 7, 40].map(|failures| wait(failures, false, None, 0.0).as_secs());
        assert_eq!(waits, [10, 20, 320, 600, 600]);
    }

    #[test]
    fn nobody_comes_before_the_authority_says_so_nor_all_at_that_moment() {
        let asked = Some(DAY * 3);
        assert_eq!(wait(1, true, asked, 0.0), DAY * 3);
        assert_eq!(wait(9, true, asked, 1.0), DAY * 3 + HOUR);
        assert_eq!(wait(1, true, Some(Duration::ZERO), 0.0), FIRST_QUICK_WAIT);
    }

    #[test]
    fn days_are_counted_down_to_none() {
        let validity = valid_for(6);
        assert_eq!(validity.days_left(day(101)), 5);
        assert_eq!(validity.days_left(day(105) + HOUR), 0);
        assert!(validity.is_over(day(107)) && !validity.is_over(day(106)));
    }
}
