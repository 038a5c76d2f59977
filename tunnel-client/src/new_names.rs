//! How many new names in a day are begun to be certified. It is a relay that says which names we have, and each
//! is a look from outside and an order.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tunnel_common::hostname::Hostname;

/// New names in a day: an honest relay has one for each of its domains, and seldom another.
pub(crate) const MAX_A_DAY: usize = 32;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The names of the last day.
#[derive(Debug, Default)]
pub(crate) struct NewNames {
    /// The oldest first.
    begun: VecDeque<(Instant, Hostname)>,
    /// When it was said last that there are too many.
    told: Option<Instant>,
}

/// A name is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    /// When there is room for another.
    pub(crate) until: Instant,
    /// Whether it should be told: once in a day.
    pub(crate) is_news: bool,
}

impl NewNames {
    /// `host` is to be begun; one of the last day may always be begun again.
    pub(crate) fn begin(&mut self, host: &Hostname, now: Instant) -> Result<(), TooMany> {
        let is_over = |since: Instant| now.duration_since(since) >= DAY;
        while self.begun.front().is_some_and(|(at, _)| is_over(*at)) {
            self.begun.pop_front();
        }
        if self.begun.iter().any(|(_, known)| known == host) {
            return Ok(());
        }
        match self.begun.front() {
            Some((oldest, _)) if self.begun.len() >= MAX_A_DAY => {
                let until = *oldest + DAY;
                let is_news = self.told.is_none_or(is_over);
                if is_news {
                    self.told = Some(now);
                }
                Err(TooMany { until, is_news })
            }
            _ => {
                self.begun.push_back((now, host.clone()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: usize) -> Hostname {
        format!("d{number}.example").parse().expect("a name")
    }

    #[test]
    fn of_a_relay_that_always_has_other_names_a_day_takes_so_many_and_the_next_as_many() {
        let (mut names, begun) = (NewNames::default(), Instant::now());
        for number in 0..MAX_A_DAY {
            names.begin(&host(number), begun).expect("few enough");
        }
        let (hour, next) = (DAY / 24, begun + DAY);
        let too_many = |is_news| {
            Err(TooMany {
                until: next,
                is_news,
            })
        };
        assert_eq!(names.begin(&host(100), begun), too_many(true));
        assert_eq!(names.begin(&host(101), begun + hour), too_many(false));
        assert_eq!(names.begin(&host(0), begun + hour), Ok(()), "known");
        for number in 100..100 + MAX_A_DAY {
            names.begin(&host(number), next).expect("another day");
        }
        let again = names.begin(&host(0), next).expect_err("full again");
        assert!(again.is_news && again.until == next + DAY);
    }
}
