//! One direction of a splice.
//!
//! ```text
//!            source ended            sink finished
//!   Moving ──────────────▶ Finishing ─────────────▶ Finished
//!     │  │                     │
//!     │  └─── sink broke ──────┴──────▶ Lost
//!     │                                  ▲
//!     └─ source broke ─▶ Draining ───────┘ all that it had sent is put
//! ```

use std::io;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::buffer::{BufferPool, Held};
use super::end::End;
use crate::budget::{Booking, TunnelBudget};

/// Takes and puts in a row before other tasks get their turn: at the largest buffer 4 MiB, some
/// milliseconds.
const ROUNDS_PER_POLL: usize = 32;
/// A sink that takes less than this in the time that makes it stalled, and never catches up, is
/// stalled although it moves: a drip would otherwise pin a window for as long as it likes.
const MIN_PROGRESS_BYTES: u64 = 64 * 1024;

/// The bytes that go from one end, the source, to the other, the sink.
#[derive(Debug, Default)]
pub(super) struct Direction {
    state: State,
    held: Held,
    /// Whether the sink may keep back bytes that were put.
    unflushed: bool,
    /// Whether anything has come out of the source, be it its end.
    has_taken: bool,
    moved: u64,
    blocked: Option<Blocked>,
    discarding_since: Option<Instant>,
    finished_at: Option<Instant>,
    source: Source,
}

/// What the source's end will mean when it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Source {
    #[default]
    Whole,
    /// It has broken: its end is no clean one.
    Cut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Moving,
    Finishing,
    Finished,
    Draining,
    Lost,
}

/// The sink takes little or nothing, although there is something for it.
#[derive(Debug)]
struct Blocked {
    /// Since when it has not taken [`MIN_PROGRESS_BYTES`].
    since: Instant,
    /// What had been moved by then.
    moved: u64,
    /// Since when it has taken nothing at all.
    last_byte: Instant,
    booking: Option<Booking>,
}

/// Which of the two streams broke.
#[derive(Debug)]
pub(super) enum Fault {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    /// Moves what can be moved. Ready when it is over: the source has ended and the sink knows it,
    /// or one of them has broken and nothing is left to put.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        pool: &BufferPool,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..ROUNDS_PER_POLL {
            match self.state {
                State::Moving if self.held.is_empty() => {
                    ready!(self.poll_take(cx, source, sink, pool))?;
                }
                State::Moving => ready!(self.poll_put(cx, sink))?,
                State::Finishing => {
                    ready!(sink.poll_finish(cx)).map_err(Fault::Sink)?;
                    self.unflushed = false;
                    self.state = State::Finished;
                }
                State::Draining if !self.held.is_empty() => ready!(self.poll_put(cx, sink))?,
                State::Draining => {
                    ready!(self.poll_flush(cx, sink))?;
                    self.state = State::Lost;
                }
                State::Finished | State::Lost => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        sink: &mut impl End,
        pool: &BufferPool,
    ) -> Poll<Result<(), Fault>> {
        let taken = source.poll_take(cx, &mut self.held, pool);
        self.has_taken |= matches!(taken, Poll::Ready(Ok(_)));
        match taken {
            Poll::Ready(Ok(0)) if self.source == Source::Cut => self.state = State::Draining,
            Poll::Ready(Ok(0)) => self.state = State::Finishing,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
            Poll::Pending => {
                ready!(self.poll_flush(cx, sink))?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, sink: &mut impl End) -> Poll<Result<(), Fault>> {
        let put = ready!(sink.poll_put(cx, &mut self.held)).map_err(Fault::Sink)?;
        self.moved += put as u64;
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, sink: &mut impl End) -> Poll<Result<(), Fault>> {
        if self.unflushed {
            ready!(sink.poll_flush(cx)).map_err(Fault::Sink)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps the times since which the sink takes too little; to be called after each
    /// [`poll`](Self::poll) that was pending. `moved` says whether that one moved a byte.
    pub(super) fn watch(&mut self, now: Instant, moved: bool, sink: &impl End) {
        if sink.is_discarding() && self.discarding_since.is_none() {
            self.discarding_since = Some(now);
        }
        if self.is_finished() && self.finished_at.is_none() {
            self.finished_at = Some(now);
        }
        if !self.waits_for_sink() {
            self.blocked = None;
            return;
        }
        match &mut self.blocked {
            Some(blocked) if self.moved - blocked.moved < MIN_PROGRESS_BYTES => {
                if moved {
                    blocked.last_byte = now;
                }
            }
            blocked => {
                let moved = self.moved;
                *blocked = Some(Blocked {
                    since: now,
                    moved,
                    last_byte: now,
                    booking: None,
                });
            }
        }
    }

    /// Books the source's memory once the sink has been blocked for long enough to be *stalled*, and
    /// more when the source's window grows meanwhile.
    pub(super) fn book_if_stalled(
        &mut self,
        stalled: bool,
        source: &impl End,
        budget: &TunnelBudget,
    ) {
        if let Some(blocked) = &mut self.blocked
            && stalled
        {
            match &mut blocked.booking {
                Some(booking) => booking.raise(source.pinned_bytes()),
                None if source.pinned_bytes() == 0 => {}
                none => *none = Some(budget.book(source.pinned_bytes())),
            }
        }
    }

    /// Whether the memory that this direction pins is needed by others.
    pub(super) fn is_evicted(&self, cx: &mut Context<'_>) -> bool {
        let booking = self
            .blocked
            .as_ref()
            .and_then(|blocked| blocked.booking.as_ref());
        booking.is_some_and(|booking| booking.poll_evicted(cx).is_ready())
    }

    /// The sink is gone: what is held is dropped. What is over stays as it is.
    pub(super) fn lose(&mut self) {
        if !self.is_over() {
            self.state = State::Lost;
            self.held = Held::Nothing;
            self.unflushed = false;
            self.blocked = None;
        }
    }

    /// The source takes no more: what it still sends is moved, but its end is passed on only where
    /// it can be believed.
    pub(super) fn cut(&mut self, source: &impl End) {
        if !source.ends_soundly() {
            self.source = Source::Cut;
        }
    }

    /// The source is gone: what is held is still put. What is over stays as it is.
    pub(super) fn drain(&mut self) {
        if !self.is_over() {
            self.state = State::Draining;
        }
    }

    /// Ends what goes into the sink, though the source has not ended. Only where it
    /// [rests](Self::rests); what is over stays as it is.
    pub(super) fn conclude(&mut self) {
        if self.rests() {
            self.state = State::Finishing;
        }
    }

    /// Throws away what the source sends beyond the end. Ready when it sends no more.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl End,
        pool: &BufferPool,
    ) -> Poll<()> {
        for _ in 0..ROUNDS_PER_POLL {
            let taken = ready!(source.poll_take(cx, &mut self.held, pool));
            self.held = Held::Nothing;
            if !matches!(taken, Ok(1..)) {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether all that the source has sent is with the sink, and more may come.
    pub(super) fn rests(&self) -> bool {
        self.reads() && !self.unflushed
    }

    /// Whether the source's next byte would be taken, so that its breaking would be seen.
    pub(super) fn reads(&self) -> bool {
        self.state == State::Moving && self.held.is_empty()
    }

    /// Whether the sink has got all, and knows it.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// When that was seen.
    pub(super) fn finished_at(&self) -> Option<Instant> {
        self.finished_at
    }

    /// Whether nothing more will be moved.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Lost)
    }

    /// Since when the sink has taken too little, if there is something for it.
    pub(super) fn slow_since(&self) -> Option<Instant> {
        self.blocked.as_ref().map(|blocked| blocked.since)
    }

    /// Since when the sink has taken nothing, if there is something for it.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked.as_ref().map(|blocked| blocked.last_byte)
    }

    /// Since when what is put is dropped, because the sink's peer has all it needs.
    pub(super) fn discarding_since(&self) -> Option<Instant> {
        self.discarding_since
    }

    /// Whether anything has come out of the source, be it its end.
    pub(super) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Bytes that the sink has taken.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    fn waits_for_sink(&self) -> bool {
        let finishing = matches!(self.state, State::Finishing | State::Draining);
        !self.held.is_empty() || self.unflushed || finishing
    }
}
