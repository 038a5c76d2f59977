//! One direction of a splice.
//!
//! ```text
//!            source ended            sink finished
//!   Moving ──────────────▶ Finishing ─────────────▶ Finished
//!     │                        │
//!     └───── sink broke ───────┴──▶ Lost
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

/// The bytes that go from one end, the source, to the other, the sink.
#[derive(Debug, Default)]
pub(super) struct Direction {
    state: State,
    held: Held,
    /// Whether the sink may keep back bytes that were put.
    unflushed: bool,
    moved: u64,
    blocked: Option<Blocked>,
    discarding_since: Option<Instant>,
    /// Whether the source's end, when it comes, is no clean one.
    cut: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Moving,
    Finishing,
    Finished,
    Lost,
}

/// The sink takes nothing, although there is something for it.
#[derive(Debug)]
struct Blocked {
    since: Instant,
    booking: Option<Booking>,
}

/// Which of the two streams broke.
#[derive(Debug)]
pub(super) enum Fault {
    Source(io::Error),
    Sink(io::Error),
}

impl Direction {
    /// Moves what can be moved. Ready when the source has ended and the sink knows it, or when the
    /// sink was lost.
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
                State::Moving => {
                    let put = ready!(sink.poll_put(cx, &mut self.held)).map_err(Fault::Sink)?;
                    self.moved += put as u64;
                    self.unflushed = true;
                }
                State::Finishing => {
                    ready!(sink.poll_finish(cx)).map_err(Fault::Sink)?;
                    self.unflushed = false;
                    self.state = State::Finished;
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
        match source.poll_take(cx, &mut self.held, pool) {
            Poll::Ready(Ok(0)) if self.cut => self.lose(),
            Poll::Ready(Ok(0)) => self.state = State::Finishing,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
            Poll::Pending => {
                if self.unflushed {
                    ready!(sink.poll_flush(cx)).map_err(Fault::Sink)?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps the time since which the sink takes nothing; to be called after each
    /// [`poll`](Self::poll) that was pending. `moved` says whether that one moved a byte.
    pub(super) fn watch(&mut self, now: Instant, moved: bool, sink: &impl End) {
        if !self.waits_for_sink() {
            self.blocked = None;
        } else if moved || self.blocked.is_none() {
            self.blocked = Some(Blocked {
                since: now,
                booking: None,
            });
        }
        if sink.is_discarding() && self.discarding_since.is_none() {
            self.discarding_since = Some(now);
        }
    }

    /// Books the source's memory once the sink has been blocked for long enough to be *stalled*.
    pub(super) fn book_if_stalled(
        &mut self,
        stalled: bool,
        source: &impl End,
        budget: &TunnelBudget,
    ) {
        if let Some(blocked) = &mut self.blocked
            && stalled
            && blocked.booking.is_none()
            && source.pinned_bytes() > 0
        {
            blocked.booking = Some(budget.book(source.pinned_bytes()));
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

    /// The sink is gone: what is held is dropped.
    pub(super) fn lose(&mut self) {
        self.state = State::Lost;
        self.held = Held::Nothing;
        self.unflushed = false;
        self.blocked = None;
    }

    /// The source has broken: what it had sent is still moved, but its end is not passed on. A
    /// socket whose error was told to a write reads as if it had ended cleanly.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// Whether the source's next byte would be taken, so that its breaking would be seen.
    pub(super) fn reads(&self) -> bool {
        self.state == State::Moving && self.held.is_empty()
    }

    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Since when the sink has taken nothing, if there is something for it.
    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked.as_ref().map(|blocked| blocked.since)
    }

    /// Since when what is put is dropped, because the sink's peer has all it needs.
    pub(super) fn discarding_since(&self) -> Option<Instant> {
        self.discarding_since
    }

    /// Bytes that the sink has taken.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    fn waits_for_sink(&self) -> bool {
        !self.held.is_empty() || self.unflushed || self.state == State::Finishing
    }
}
