//! How bad a line is.

use std::time::Duration;

use e2e::netsim::Loss;

/// A line's round trip, and the share of packets that it loses in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    Clear,
    OnePercent,
    FivePercent,
    /// 200 ms, and two percent.
    Far,
}

impl Weather {
    pub(crate) const ALL: [Self; 4] = [Self::Clear, Self::OnePercent, Self::FivePercent, Self::Far];

    /// Its name in files.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Clear => "50ms_0",
            Self::OnePercent => "50ms_1",
            Self::FivePercent => "50ms_5",
            Self::Far => "200ms_2",
        }
    }

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clear => "50 ms, no loss",
            Self::OnePercent => "50 ms, 1 %",
            Self::FivePercent => "50 ms, 5 %",
            Self::Far => "200 ms, 2 %",
        }
    }

    /// How long a packet flies.
    pub(crate) fn one_way(self) -> Duration {
        Duration::from_millis(if self == Self::Far { 100 } else { 25 })
    }

    /// What becomes of packets on the way.
    pub(crate) fn loss(self) -> Loss {
        match self {
            Self::Clear => Loss::None,
            Self::OnePercent => Loss::Random(0.01),
            Self::FivePercent => Loss::Random(0.05),
            Self::Far => Loss::Random(0.02),
        }
    }
}
