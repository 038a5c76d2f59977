//! The end of a splice that its owner wants to be over: clean, and between two requests.

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::super::end::End;
use super::super::ended::{Cause, Side};
use super::super::options::Sight;
use super::{Closing, PARTING, Splice};

/// A TLS 1.3 server sends tickets behind the visitor's Finished, with which his first request comes:
/// two of some hundred bytes each, more with certificates of visitors. What is less may be no answer.
const TICKETS_BYTES: u64 = 4 * 1024;
/// Whoever sees what is said ends a visit so much earlier than those who see its TLS only: he can end the
/// TLS as well.
const CLEAR_FIRST: Duration = Duration::from_secs(1);

impl<A: End, B: End> Splice<A, B> {
    /// Lets the splice end cleanly, both ways, as soon as it is *half-idle*: nothing has moved for
    /// [`Timeouts::half_idle`](crate::splice::options::Timeouts::half_idle), and the last byte went to
    /// the first end, as that of an answer does.
    ///
    /// A request that waits for its answer goes on, and so does an answer that is not read, or whose
    /// visitor has said that he asks for nothing more. Where TLS is all that is seen, so does what may
    /// wait: after less than 4 KiB, which may be tickets. What a visitor asks at the very moment of the
    /// end is thrown away, never half done. The splice must be polled on; to ask again changes nothing.
    pub fn close_when_idle(&mut self, sight: Sight) {
        if self.closing == Closing::NotAsked {
            self.closing = Closing::WhenIdle(sight);
        }
    }

    /// Waits for the visitor to end his side too, for a while.
    pub(super) fn part(
        &mut self,
        cx: &mut Context<'_>,
        since: Instant,
        now: Instant,
    ) -> Option<Cause> {
        let rest = self
            .a_to_b
            .poll_discard(cx, &mut self.a, &self.options.pool);
        (rest.is_ready() || since + PARTING <= now).then_some(Cause::Closed)
    }

    /// When a splice that should close is half-idle, if nothing moves until then.
    pub(super) fn half_idle_at(&self) -> Option<Instant> {
        let Closing::WhenIdle(sight) = self.closing else {
            return None;
        };
        let rests = self.a_to_b.rests() && (self.b_to_a.rests() || self.b_to_a.is_finished());
        let is_half_idle = self.lost.is_none() && rests && !self.may_wait(sight);
        let half_idle = self.options.timeouts.half_idle;
        let after = match sight {
            Sight::Clear => half_idle,
            Sight::Opaque => half_idle + CLEAR_FIRST,
        };
        is_half_idle.then(|| self.last_move + after)
    }

    /// When nothing is waited for any more of an answer whose visitor has broken, in a splice that should
    /// close, if nothing moves until then.
    pub(super) fn rest_is_over_at(&self) -> Option<Instant> {
        let should_close = matches!(self.closing, Closing::WhenIdle(_));
        let is_answered = should_close && self.last_mover == Some(Side::B);
        is_answered.then(|| self.last_move + self.options.timeouts.half_idle)
    }

    /// Whether the visitor may wait for an answer.
    fn may_wait(&self, sight: Sight) -> bool {
        let answered = self.b_to_a.moved() - self.answered_before;
        let may_be_tickets = self.a_to_b.moved() == 0 || answered < TICKETS_BYTES;
        // Behind the end of all answers nobody waits, but somebody may still send.
        let waits = !self.b_to_a.is_finished()
            && (self.answer_due().is_some() || (sight == Sight::Opaque && may_be_tickets));
        waits || self.last_mover == Some(Side::A)
    }

    /// Ends both sinks, though their sources have not ended.
    pub(super) fn close(&mut self, now: Instant) {
        self.closing = Closing::Since(now);
        self.a_to_b.conclude();
        self.b_to_a.conclude();
    }
}
