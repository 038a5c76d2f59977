//! What a story is, what came of it, and whether that is good enough.

use std::pin::Pin;
use std::time::Duration;

use e2e::transport::Over;

/// A story being played.
pub(crate) type Playing = Pin<Box<dyn Future<Output = Outcome>>>;

/// One story: its name, what happens in it, and what must come of it.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The bars over QUIC, where it is played over that.
    quic: Option<&'static [Bar]>,
    h2: Option<&'static [Bar]>,
    pub(crate) play: fn(Over) -> Playing,
    /// It looks at the process that plays it: nothing else may happen there meanwhile.
    pub(crate) is_alone: bool,
}

/// What must not be exceeded.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    /// New visitors are without an answer for so many seconds at most.
    Outage(u64),
    /// The same, counted from when the network or the relay was back.
    AfterBack(u64),
    /// Every request is answered.
    NobodyFails,
    /// Every visit goes on.
    NobodyIsCut,
}

/// What came of a story over one transport.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The longest time between two answers to new visitors around the fault.
    pub(crate) outage: Option<Duration>,
    /// The longest time without one from when all was there again.
    pub(crate) after_back: Option<Duration>,
    /// The longest wait of a new visitor who was served in the end.
    pub(crate) slowest: Option<Duration>,
    /// New visitors with a request each, and those of them who had no answer.
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    /// Visits that lasted, and those of them that were cut.
    pub(crate) visits: usize,
    pub(crate) cut: usize,
    /// Other figures.
    pub(crate) notes: Vec<String>,
    /// What went wrong that no figure tells: always too much.
    pub(crate) faults: Vec<String>,
}

impl Story {
    /// One that is played over both, with the same bars.
    pub(crate) const fn both(
        name: &'static str,
        what: &'static str,
        bars: &'static [Bar],
        play: fn(Over) -> Playing,
    ) -> Self {
        Self::each(name, what, Some(bars), Some(bars), play)
    }

    /// One that means nothing without UDP.
    pub(crate) const fn quic(
        name: &'static str,
        what: &'static str,
        bars: &'static [Bar],
        play: fn(Over) -> Playing,
    ) -> Self {
        Self::each(name, what, Some(bars), None, play)
    }

    /// One with these bars over QUIC, and those over HTTP/2.
    pub(crate) const fn each(
        name: &'static str,
        what: &'static str,
        quic: Option<&'static [Bar]>,
        h2: Option<&'static [Bar]>,
        play: fn(Over) -> Playing,
    ) -> Self {
        Self {
            name,
            what,
            quic,
            h2,
            play,
            is_alone: false,
        }
    }

    /// The same, played over one transport after the other.
    pub(crate) const fn alone(self) -> Self {
        Self {
            is_alone: true,
            ..self
        }
    }

    /// The bars over this transport; `None` if it is not played over that.
    pub(crate) fn bars(&self, over: Over) -> Option<&'static [Bar]> {
        match over {
            Over::Quic => self.quic,
            Over::H2 => self.h2,
        }
    }

    /// Over what it is played.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Over> {
        let ways = [Over::Quic, Over::H2].into_iter();
        ways.filter(|over| self.bars(*over).is_some())
    }
}

impl Outcome {
    /// One that could not be played to its end.
    pub(crate) fn broken(why: String) -> Self {
        Self {
            faults: vec![why],
            ..Self::default()
        }
    }

    /// The time that counts: from when all was back, where it was away.
    pub(crate) fn without_service(&self) -> Option<Duration> {
        self.after_back.or(self.outage)
    }
}

impl Bar {
    /// What is too much, if it is.
    pub(crate) fn missed(self, outcome: &Outcome) -> Option<String> {
        let too_long = |took: Option<Duration>, limit: u64, what: &str| match took {
            Some(took) if took <= Duration::from_secs(limit) => None,
            Some(took) => Some(format!("{took:.2?} {what}, at most {limit} s")),
            None => Some(format!("nobody knows how long {what}")),
        };
        let too_many = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        match self {
            Self::Outage(limit) => too_long(outcome.outage, limit, "without service"),
            Self::AfterBack(limit) => {
                let what = "without service after it was back";
                too_long(outcome.after_back, limit, what)
            }
            Self::NobodyFails => too_many(outcome.failed, "requests failed"),
            Self::NobodyIsCut => too_many(outcome.cut, "visits were cut"),
        }
    }
}
