//! Two directions, one task, and the rules by which a splice ends.
//!
//! * A clean end of one side is passed on as a clean end; the other direction goes on. When both
//!   have ended, the splice is over.
//! * A side that breaks ends both: its counterpart is reset, never ended cleanly. Only when a side
//!   no longer *takes* bytes is what it had sent before still delivered, for a short while: a
//!   service that refuses an upload answers and closes.
//! * What goes on without bytes is ended by the clocks of [`Timeouts`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::buffer::BufferPool;
use super::direction::{Direction, Fault};
use super::end::End;
use crate::budget::TunnelBudget;
use crate::wire::code::Code;

/// How long a splice waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Nothing moves either way: 1 h keeps an idle WebSocket, and no leak for ever.
    pub idle: Duration,
    /// One direction has ended and nothing moves in the other: 60 s.
    pub half_closed: Duration,
    /// A sink takes nothing: after 5 s the memory behind it is booked as stalled.
    pub stalled: Duration,
    /// A sink takes nothing: after 10 min the splice ends, whether memory is short or not.
    pub stalled_max: Duration,
    /// One side has broken, or has all it needs: what the other still sends has 5 s.
    pub linger: Duration,
    /// How often a side that is not being read is asked whether it has broken: 500 ms.
    pub probe: Duration,
    /// The second end must have sent its first byte by then; `None`: whenever it likes.
    pub first_answer: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            half_closed: Duration::from_secs(60),
            stalled: Duration::from_secs(5),
            stalled_max: Duration::from_secs(600),
            linger: Duration::from_secs(5),
            probe: Duration::from_millis(500),
            first_answer: None,
        }
    }
}

/// Bytes moved so far, to be read while the splice runs.
#[derive(Debug, Default)]
pub struct Meter {
    a_to_b: AtomicU64,
    b_to_a: AtomicU64,
}

impl Meter {
    /// Bytes that the second end has taken from the first.
    pub fn a_to_b(&self) -> u64 {
        self.a_to_b.load(Ordering::Relaxed)
    }

    /// Bytes that the first end has taken from the second.
    pub fn b_to_a(&self) -> u64 {
        self.b_to_a.load(Ordering::Relaxed)
    }
}

/// What a splice is given beside its ends.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where buffers come from.
    pub pool: BufferPool,
    /// Whose memory stalled bytes are.
    pub budget: TunnelBudget,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// Where it counts.
    pub meter: Arc<Meter>,
}

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
        /// How it showed; [`code_of`](crate::stream::quic::code_of) may know more.
        error: io::Error,
    },
    /// A clock ran out; both ends were reset.
    Limit(Limit),
    /// The caller ended it with this code.
    Aborted(Code),
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// [`Timeouts::idle`].
    Idle,
    /// [`Timeouts::half_closed`], or [`Timeouts::linger`] after the sink wanted no more.
    HalfClosed,
    /// [`Timeouts::stalled_max`].
    Stalled,
    /// [`Timeouts::first_answer`].
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

/// The pump between `A`, where the visitor is, and `B`, where the local service is: a future that
/// is ready when it is over.
///
/// Dropping it aborts both ends.
#[derive(Debug)]
#[must_use = "a splice moves bytes only while it is polled"]
pub struct Splice<A, B> {
    a: A,
    b: B,
    a_to_b: Direction,
    b_to_a: Direction,
    options: Options,
    started: Instant,
    last_move: Instant,
    lost: Option<Lost>,
    alarm: Pin<Box<Sleep>>,
}

/// An end that takes no more bytes, and what it had sent before is being delivered.
#[derive(Debug)]
struct Lost {
    side: Side,
    error: io::Error,
    at: Instant,
}

impl<A: End, B: End> Splice<A, B> {
    /// Joins two ends.
    pub fn new(a: A, b: B, options: Options) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now + options.timeouts.stalled));
        Self {
            a,
            b,
            a_to_b: Direction::default(),
            b_to_a: Direction::default(),
            options,
            started: now,
            last_move: now,
            lost: None,
            alarm,
        }
    }

    /// Resets both ends with `code`.
    pub fn abort(mut self, code: Code) -> Ended {
        self.end(Cause::Aborted(code))
    }

    fn end(&mut self, cause: Cause) -> Ended {
        let code = match &cause {
            Cause::Clean => None,
            Cause::Broke { side: Side::A, .. } => Some(Code::VisitorAborted),
            Cause::Broke { side: Side::B, .. } => Some(Code::LocalRefused),
            Cause::Limit(_) => Some(Code::Limit),
            Cause::Aborted(code) => Some(*code),
        };
        if let Some(code) = code {
            self.a.abort(code);
            self.b.abort(code);
        }
        Ended {
            a_to_b: self.a_to_b.moved(),
            b_to_a: self.b_to_a.moved(),
            cause,
        }
    }

    /// Moves both ways and keeps the clocks' books. `Some` when a side broke or all is done.
    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Cause> {
        let (ab, ba) = (self.a_to_b.moved(), self.b_to_a.moved());
        let pool = &self.options.pool;
        let forth = self.a_to_b.poll(cx, &mut self.a, &mut self.b, pool);
        if let Some(cause) = self.settle(forth, Side::A, now) {
            return Some(cause);
        }
        let pool = &self.options.pool;
        let back = self.b_to_a.poll(cx, &mut self.b, &mut self.a, pool);
        if let Some(cause) = self.settle(back, Side::B, now) {
            return Some(cause);
        }
        let (ab, ba) = (self.a_to_b.moved() > ab, self.b_to_a.moved() > ba);
        self.a_to_b.watch(now, ab, &self.b);
        self.b_to_a.watch(now, ba, &self.a);
        if ab || ba {
            self.last_move = now;
            self.options
                .meter
                .a_to_b
                .store(self.a_to_b.moved(), Ordering::Relaxed);
            self.options
                .meter
                .b_to_a
                .store(self.b_to_a.moved(), Ordering::Relaxed);
        }
        let over = self.a_to_b.is_finished() && self.b_to_a.is_finished();
        over.then_some(Cause::Clean)
    }

    /// What a direction's poll means for the whole; `source` is the side that it takes from.
    fn settle(
        &mut self,
        poll: Poll<Result<(), Fault>>,
        source: Side,
        now: Instant,
    ) -> Option<Cause> {
        let sink = if source == Side::A { Side::B } else { Side::A };
        match poll {
            Poll::Pending => None,
            // What a broken side had sent before is delivered: now it is over, and not cleanly.
            Poll::Ready(_) if self.lost.as_ref().is_some_and(|lost| lost.side == source) => {
                self.lost.take().map(|lost| Cause::Broke {
                    side: lost.side,
                    error: lost.error,
                })
            }
            Poll::Ready(Ok(())) => None,
            Poll::Ready(Err(Fault::Source(error))) => Some(Cause::Broke {
                side: source,
                error,
            }),
            Poll::Ready(Err(Fault::Sink(error))) => {
                let (this, other) = match source {
                    Side::A => (&mut self.a_to_b, &self.b_to_a),
                    Side::B => (&mut self.b_to_a, &self.a_to_b),
                };
                if other.is_finished() {
                    return Some(Cause::Broke { side: sink, error });
                }
                this.lose();
                self.lost = Some(Lost {
                    side: sink,
                    error,
                    at: now,
                });
                None
            }
        }
    }

    /// Asks sides that are not being read whether they have broken.
    fn probe(&mut self, cx: &mut Context<'_>) -> Option<Cause> {
        let broke = |side, error| Some(Cause::Broke { side, error });
        if !self.a_to_b.reads()
            && let Err(error) = self.a.probe(cx)
        {
            return broke(Side::A, error);
        }
        if !self.b_to_a.reads()
            && let Err(error) = self.b.probe(cx)
        {
            return broke(Side::B, error);
        }
        None
    }

    /// Every clock that runs now, and what it means when it has run out.
    fn clocks(&self) -> impl Iterator<Item = (Instant, Limit)> + use<A, B> {
        let timeouts = &self.options.timeouts;
        let half_closed = self.a_to_b.is_finished() || self.b_to_a.is_finished();
        let silence = if half_closed {
            (self.last_move + timeouts.half_closed, Limit::HalfClosed)
        } else {
            (self.last_move + timeouts.idle, Limit::Idle)
        };
        let unanswered = self.b_to_a.moved() == 0 && !self.b_to_a.is_finished();
        let answer = timeouts.first_answer.filter(|_| unanswered);
        let stalled = |direction: &Direction| {
            direction
                .blocked_since()
                .map(|since| (since + timeouts.stalled_max, Limit::Stalled))
        };
        let discarding = |direction: &Direction, other: &Direction| {
            let since = direction.discarding_since().filter(|_| other.is_finished());
            since.map(|since| (since + timeouts.linger, Limit::HalfClosed))
        };
        [
            Some(silence),
            answer.map(|answer| (self.started + answer, Limit::NoAnswer)),
            stalled(&self.a_to_b),
            stalled(&self.b_to_a),
            discarding(&self.a_to_b, &self.b_to_a),
            discarding(&self.b_to_a, &self.a_to_b),
        ]
        .into_iter()
        .flatten()
    }

    /// What the clocks say at `now`.
    fn check_clocks(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Cause> {
        let Self {
            a,
            b,
            a_to_b,
            b_to_a,
            options,
            ..
        } = self;
        let stalled = |direction: &Direction| {
            direction
                .blocked_since()
                .is_some_and(|since| since + options.timeouts.stalled <= now)
        };
        a_to_b.book_if_stalled(stalled(a_to_b), a, &options.budget);
        b_to_a.book_if_stalled(stalled(b_to_a), b, &options.budget);
        if self.a_to_b.is_evicted(cx) || self.b_to_a.is_evicted(cx) {
            return Some(Cause::Limit(Limit::Evicted));
        }
        let linger = self.options.timeouts.linger;
        if let Some(lost) = self.lost.take_if(|lost| lost.at + linger <= now) {
            return Some(Cause::Broke {
                side: lost.side,
                error: lost.error,
            });
        }
        let out = self.clocks().find(|(at, _)| *at <= now);
        out.map(|(_, limit)| Cause::Limit(limit))
    }

    /// When to look again although nothing moves.
    fn next_alarm(&self, now: Instant) -> Instant {
        let timeouts = &self.options.timeouts;
        let ends = self.clocks().map(|(at, _)| at);
        let lost = self.lost.as_ref().map(|lost| lost.at + timeouts.linger);
        let unread = !self.a_to_b.reads() || !self.b_to_a.reads();
        let probe = unread.then_some(now + timeouts.probe);
        ends.chain(lost)
            .chain(probe)
            .min()
            .unwrap_or(now + timeouts.idle)
    }
}

impl<A: End + Unpin, B: End + Unpin> Future for Splice<A, B> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        loop {
            let now = Instant::now();
            let broken = if this.alarm.is_elapsed() {
                this.probe(cx)
            } else {
                None
            };
            let over = broken.or_else(|| this.pump(cx, now));
            if let Some(cause) = over.or_else(|| this.check_clocks(cx, now)) {
                return Poll::Ready(this.end(cause));
            }
            // An alarm that is too early costs one idle look; moving it with every byte costs more.
            let next = this.next_alarm(now);
            if next < this.alarm.deadline() || this.alarm.is_elapsed() {
                this.alarm.as_mut().reset(next);
            }
            if this.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests;
