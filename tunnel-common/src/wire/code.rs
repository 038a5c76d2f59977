//! Why a stream or a tunnel ended: one table for every transport.

use std::fmt;

/// The reason that travels in a reset, a stop or a close.
///
/// A number that a newer peer invents is kept as [`Code::Other`] and means no more than "ended".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// 0: nothing is wrong; no more bytes are wanted.
    None,
    /// 1: the visitor aborted.
    VisitorAborted,
    /// 2: the local service refused the connection, or broke it.
    LocalRefused,
    /// 3: the local service did not answer the dial in time.
    LocalTimeout,
    /// 4: a limit was reached: idle, stalled, or too many.
    Limit,
    /// 5: the stream's header names an endpoint that the agent does not have.
    UnknownRef,
    /// 6: a rule forbids it.
    Policy,
    /// 7: a newer tunnel of the same agent has taken over.
    Replaced,
    /// 8: this side is about to stop.
    Draining,
    /// 9: the peer broke the protocol.
    Protocol,
    /// 10: the relay does not admit this agent.
    Refused,
    /// Any other number.
    Other(u32),
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::VisitorAborted => 1,
            Self::LocalRefused => 2,
            Self::LocalTimeout => 3,
            Self::Limit => 4,
            Self::UnknownRef => 5,
            Self::Policy => 6,
            Self::Replaced => 7,
            Self::Draining => 8,
            Self::Protocol => 9,
            Self::Refused => 10,
            Self::Other(number) => number,
        }
    }
}

impl From<u64> for Code {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::None,
            1 => Self::VisitorAborted,
            2 => Self::LocalRefused,
            3 => Self::LocalTimeout,
            4 => Self::Limit,
            5 => Self::UnknownRef,
            6 => Self::Policy,
            7 => Self::Replaced,
            8 => Self::Draining,
            9 => Self::Protocol,
            10 => Self::Refused,
            other => Self::Other(u32::try_from(other).unwrap_or(u32::MAX)),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::None => "ended",
            Self::VisitorAborted => "the visitor aborted",
            Self::LocalRefused => "the local service refused or broke the connection",
            Self::LocalTimeout => "the local service did not answer in time",
            Self::Limit => "a limit was reached",
            Self::UnknownRef => "the agent has no such endpoint",
            Self::Policy => "a rule forbids it",
            Self::Replaced => "a newer tunnel of the same agent took over",
            Self::Draining => "the peer is stopping",
            Self::Protocol => "the protocol was broken",
            Self::Refused => "the relay does not admit this agent",
            Self::Other(number) => return write!(f, "code {number}"),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in 0..=300_u32 {
            let code = Code::from(u64::from(number));
            assert_eq!(code.number(), number);
            assert_eq!(matches!(code, Code::Other(_)), number > 10, "{code:?}");
        }
        assert_eq!(Code::from(u64::MAX), Code::Other(u32::MAX));
    }
}
