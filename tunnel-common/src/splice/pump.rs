//! Two directions, one task, and the rules by which a splice ends.
//!
//! * A clean end of one side is passed on as a clean end; the other direction goes on. When both
//!   have ended, the splice is over.
//! * A side that breaks ends both: its counterpart is reset, never ended cleanly. What the service's
//!   side had sent before is still delivered, for a short while: a service that refuses an upload
//!   answers and closes. A reset that follows at once would overtake the answer.
//! * A visitor who has got a complete answer keeps it, whatever becomes of the rest.
//! * What goes on without bytes is ended by the clocks of [`Timeouts`](super::options::Timeouts).
//! * Who wants to stop [asks](Splice::close_when_idle) for a clean end between two requests.
//!
//! ```text
//!   both directions move ──────── both ended ─────────────────────────▶ over, clean
//!     │  side broke ──▶ the other direction's rest ──▶ time to arrive ─▶ over, reset
//!     ├─ asked to close, and half-idle ──▶ both ended ──▶ time to part ─▶ over, clean
//!     └─ a clock ran out, or aborted ──────────────────────────────────▶ over, reset
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::direction::{Direction, Fault};
use super::end::End;
use super::ended::{Cause, Ended, Limit, Side};
use super::options::{Options, Sight};
use crate::wire::code::Code;

/// A visitor whose connection we have ended has so long to end it too: a round trip, even a slow one.
/// Closed at once, a socket that gets one more byte resets what is on its way.
const PARTING: Duration = Duration::from_secs(1);

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
    /// Which end sent what moved last; of both at once the first, who may have asked for something.
    last_mover: Option<Side>,
    /// What the second end had sent when the first sent something last.
    answered_before: u64,
    closing: Closing,
    lost: Option<Lost>,
    /// Whether the first end may still be needed when the splice is over.
    keeps_first: bool,
    alarm: Pin<Box<Sleep>>,
}

/// Whether the splice should come to its end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    NotAsked,
    WhenIdle(Sight),
    /// It was idle then, and both sinks are being ended.
    Since(Instant),
}

/// An end that has broken, while what is left of the other direction is being delivered.
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
            last_mover: None,
            answered_before: 0,
            closing: Closing::NotAsked,
            lost: None,
            keeps_first: false,
            alarm,
        }
    }

    /// Resets both ends with `code`.
    pub fn abort(&mut self, code: Code) -> Ended {
        self.end(Cause::Aborted(code))
    }

    fn end(&mut self, cause: Cause) -> Ended {
        let code = match &cause {
            Cause::Clean | Cause::Closed => None,
            Cause::Broke { side: Side::A, .. } => Some(Code::VisitorAborted),
            Cause::Broke { side: Side::B, .. } => Some(Code::LocalRefused),
            Cause::Limit(_) => Some(Code::Limit),
            Cause::Aborted(code) => Some(*code),
        };
        if let Some(code) = code {
            let is_kept = self.keeps_first && self.is_untouched();
            // A reset would destroy what is on its way of a complete answer.
            if !is_kept && !self.b_to_a.is_finished() {
                self.a.abort(code);
            }
            self.b.abort(code);
        }
        Ended {
            a_to_b: self.a_to_b.moved(),
            b_to_a: self.b_to_a.moved(),
            cause,
        }
    }

    /// Moves both ways and keeps the clocks' books. `Some` when all is done.
    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Cause> {
        let (ab, ba) = (self.a_to_b.moved(), self.b_to_a.moved());
        let pool = &self.options.pool;
        // In this order, so that what moves both ways at once is an answer and the request behind it, and
        // never a request and its answer.
        let back = self.b_to_a.poll(cx, &mut self.b, &mut self.a, pool);
        let forth = self.a_to_b.poll(cx, &mut self.a, &mut self.b, pool);
        let (ab, ba) = (self.a_to_b.moved() > ab, self.b_to_a.moved() > ba);
        if ab || ba {
            self.last_move = now;
            self.last_mover = Some(if ab { Side::A } else { Side::B });
            if ab {
                self.answered_before = self.b_to_a.moved();
            }
            self.options
                .meter
                .set(self.a_to_b.moved(), self.b_to_a.moved());
        }
        let faults = [fault(forth), fault(back)];
        if faults.iter().any(Option::is_some) {
            // Each is told only once, so none may be passed over. What is then left of the other
            // direction can be moved now; nothing will wake us for it.
            let [forth, back] = faults;
            let forth = forth.and_then(|fault| self.settle(fault, Side::A, now));
            let back = back.and_then(|fault| self.settle(fault, Side::B, now));
            return forth.or(back).or_else(|| self.pump(cx, now));
        }
        self.a_to_b.watch(now, ab, &self.b);
        self.b_to_a.watch(now, ba, &self.a);
        if !self.a_to_b.is_over() || !self.b_to_a.is_over() {
            return None;
        }
        match &self.lost {
            Some(_) if now < self.arrived_by() => None,
            Some(_) => self.take_lost(),
            None => match self.closing {
                Closing::Since(at) => self.part(cx, at, now),
                Closing::NotAsked | Closing::WhenIdle(_) => Some(Cause::Clean),
            },
        }
    }

    /// When the first byte of an answer must have come, if that is so and none has.
    fn answer_due(&self) -> Option<Instant> {
        let unanswered = self.b_to_a.moved() == 0 && !self.b_to_a.is_finished();
        let answer = self.options.first_answer.filter(|_| unanswered);
        answer.map(|answer| self.started + answer)
    }

    /// When what was last put may be taken to have arrived, so that a reset does not overtake it.
    fn arrived_by(&self) -> Instant {
        let delivered = self.b_to_a.moved() > 0 && !self.b_to_a.is_finished();
        if delivered {
            self.last_move + self.options.timeouts.arrival
        } else {
            self.last_move
        }
    }

    /// What a fault means for the whole; `source` is the side that the direction takes from. `Some`
    /// when it is over at once. After each fault a direction that was moving is not any more.
    fn settle(&mut self, fault: Fault, source: Side, now: Instant) -> Option<Cause> {
        let (side, error) = match (fault, source) {
            // TLS that ended without saying so: no upload is complete by that, but the visitor may
            // still be there for his answer.
            (Fault::Source(error), Side::A) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.a_to_b.lose();
                (Side::A, error)
            }
            (Fault::Source(error), Side::A) => {
                let earlier = self.take_lost();
                return earlier.or(Some(Cause::Broke {
                    side: source,
                    error,
                }));
            }
            (Fault::Source(error), Side::B) => {
                self.a_to_b.lose();
                self.b_to_a.drain();
                (Side::B, error)
            }
            (Fault::Sink(error), Side::A) => {
                self.a_to_b.lose();
                self.b_to_a.cut(&self.b);
                (Side::B, error)
            }
            (Fault::Sink(error), Side::B) => {
                self.b_to_a.lose();
                self.a_to_b.cut(&self.a);
                (Side::A, error)
            }
        };
        self.lost.get_or_insert(Lost {
            side,
            error,
            at: now,
        });
        None
    }

    fn take_lost(&mut self) -> Option<Cause> {
        self.lost.take().map(|lost| Cause::Broke {
            side: lost.side,
            error: lost.error,
        })
    }

    /// How long what is left of the other direction is waited for when one end has broken.
    fn lost_until(&self) -> Option<Instant> {
        let until = self.lost.as_ref()?.at + self.options.timeouts.linger;
        Some(self.rest_is_over_at().map_or(until, |at| at.min(until)))
    }

    /// Asks sides that are not being read whether they have broken.
    fn probe(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Cause> {
        if self.lost.is_some() || matches!(self.closing, Closing::Since(_)) {
            return None;
        }
        if !self.a_to_b.reads()
            && let Err(error) = self.a.probe(cx)
        {
            return self.settle(Fault::Source(error), Side::A, now);
        }
        if !self.b_to_a.reads()
            && let Err(error) = self.b.probe(cx)
        {
            // It takes no more; what it had sent may still be there to be read.
            return self.settle(Fault::Sink(error), Side::A, now);
        }
        None
    }

    /// Every clock that runs now, and what it means when it has run out.
    fn clocks(&self) -> impl Iterator<Item = (Instant, Limit)> + use<A, B> {
        let timeouts = &self.options.timeouts;
        let finished = self.a_to_b.finished_at().max(self.b_to_a.finished_at());
        let silence = match finished {
            Some(at) => (
                self.last_move.max(at) + timeouts.half_closed,
                Limit::HalfClosed,
            ),
            None => (self.last_move + timeouts.idle, Limit::Idle),
        };
        let stalled = |direction: &Direction| {
            direction
                .blocked_since()
                .map(|since| (since + timeouts.stalled_max, Limit::Stalled))
        };
        let discarding = |direction: &Direction, other: &Direction| {
            let since = direction.discarding_since()?.max(other.finished_at()?);
            Some((since + timeouts.linger, Limit::HalfClosed))
        };
        [
            Some(silence),
            self.answer_due().map(|due| (due, Limit::NoAnswer)),
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
                .slow_since()
                .is_some_and(|since| since + options.timeouts.stalled <= now)
        };
        a_to_b.book_if_stalled(stalled(a_to_b), a, &options.budget);
        b_to_a.book_if_stalled(stalled(b_to_a), b, &options.budget);
        if self.a_to_b.is_evicted(cx) || self.b_to_a.is_evicted(cx) {
            return Some(Cause::Limit(Limit::Evicted));
        }
        if self.half_idle_at().is_some_and(|at| at <= now) {
            self.close(now);
            // Nothing will wake us for it.
            return self.pump(cx, now);
        }
        if self.lost_until().is_some_and(|until| until <= now) {
            return self.take_lost();
        }
        let out = self.clocks().find(|(at, _)| *at <= now);
        out.map(|(_, limit)| Cause::Limit(limit))
    }

    /// When to look again although nothing moves.
    fn next_alarm(&self, now: Instant) -> Instant {
        let timeouts = &self.options.timeouts;
        let ends = self.clocks().map(|(at, _)| at);
        let both_over = self.a_to_b.is_over() && self.b_to_a.is_over();
        let parted = both_over.then(|| match (self.closing, &self.lost) {
            (Closing::Since(at), None) => at + PARTING,
            _ => self.arrived_by(),
        });
        let slow = [&self.a_to_b, &self.b_to_a]
            .map(Direction::slow_since)
            .into_iter()
            .flatten();
        let stalled = slow
            .map(|since| since + timeouts.stalled)
            .filter(|at| *at > now);
        let unread = !self.a_to_b.reads() || !self.b_to_a.reads();
        let probe = unread.then_some(now + timeouts.probe);
        let next = ends
            .chain(self.lost_until())
            .chain(self.half_idle_at())
            .chain(parted)
            .chain(stalled)
            .chain(probe)
            .min();
        next.unwrap_or(now + timeouts.idle)
    }
}

fn fault(poll: Poll<Result<(), Fault>>) -> Option<Fault> {
    match poll {
        Poll::Ready(Err(fault)) => Some(fault),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    }
}

impl<A: End + Unpin, B: End + Unpin> Future for Splice<A, B> {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = self.get_mut();
        loop {
            let now = Instant::now();
            let broken = if this.alarm.is_elapsed() {
                this.probe(cx, now)
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

mod apart;
mod close;
#[cfg(test)]
mod tests;
