//! How a splice ended.

use std::io;

use crate::wire::code::Code;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first: where the visitor is.
    A,
    /// The second: where the local service is.
    B,
}

/// Why a splice is over.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// Both directions ended cleanly.
    Clean,
    /// One end broke; the other was reset.
    Broke {
        /// The end that broke.
        side: Side,
        /// How it showed.
        error: io::Error,
    },
    /// A clock ran out; both ends were reset.
    Limit(Limit),
    /// The caller wanted it to end, and nobody waited for anything: both directions were ended cleanly.
    Closed,
    /// The caller ended it with this code.
    Aborted(Code),
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Timeouts::idle`](super::options::Timeouts::idle).
    Idle,
    /// [`Timeouts::half_closed`](super::options::Timeouts::half_closed), or
    /// [`Timeouts::linger`](super::options::Timeouts::linger) after the sink wanted no more.
    HalfClosed,
    /// [`Timeouts::stalled_max`](super::options::Timeouts::stalled_max).
    Stalled,
    /// [`Timeouts::first_answer`](super::options::Timeouts::first_answer).
    NoAnswer,
    /// Its stalled bytes were in the way of others.
    Evicted,
}

/// How a splice ended and what it moved.
#[derive(Debug)]
pub struct Ended {
    /// Bytes from the first end to the second.
    pub a_to_b: u64,
    /// Bytes from the second end to the first.
    pub b_to_a: u64,
    /// Why it is over.
    pub cause: Cause,
}
