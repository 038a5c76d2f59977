//! Whether time has passed in which nothing of ours ran: the host slept, or the process was stopped.

use std::time::Duration;

/// How often the clock is looked at.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// A look that is later than this was not held up by a busy machine.
const LATE: Duration = Duration::from_secs(3);

/// How long nothing ran, if so much time has passed between two looks.
pub(super) fn slept(between_looks: Duration) -> Option<Duration> {
    let late = between_looks.checked_sub(TICK)?;
    (late > LATE).then_some(late)
}

/// The time since some moment in the past. It goes on while the host sleeps, other than the clock of our
/// timers.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(super) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}

/// The time since the first look. Whether it goes on while the host sleeps depends on the system; it does
/// while the process is stopped.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(super) fn now() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;

    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_much_too_late_tells_how_long_nothing_ran() {
        assert_eq!(slept(Duration::ZERO), None);
        assert_eq!(slept(TICK), None);
        assert_eq!(slept(TICK + LATE), None);
        let hour = Duration::from_secs(3600);
        assert_eq!(slept(TICK + hour), Some(hour));
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now();
        assert!(now() >= before);
    }
}
