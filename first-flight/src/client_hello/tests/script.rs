//! A visitor that sends prepared segments and then waits or closes, and what `read` makes of it.
//!
//! No runtime and no clock: the future is polled by hand, so "still waiting" is something that a
//! test can see.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::super::{FirstFlight, ReadError, read};

/// What a visitor does after its last segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// Keeps the connection open and says nothing.
    Waits,
    /// Closes its half of the connection.
    Closes,
    /// Vanishes with a reset.
    Resets,
}

/// The stream that a scripted visitor is at the other end of.
#[derive(Debug)]
pub(super) struct Script {
    segments: VecDeque<Vec<u8>>,
    then: Then,
    /// Whether the next segment has arrived; between two of them the reader finds nothing.
    arrived: bool,
}

impl Script {
    /// A visitor that sends `segments`, one at a time, `then` ends.
    pub(super) fn new<T: AsRef<[u8]>>(segments: &[T], then: Then) -> Self {
        let segments = segments
            .iter()
            .map(|segment| segment.as_ref().to_vec())
            .filter(|segment| !segment.is_empty());
        Self {
            segments: segments.collect(),
            then,
            arrived: false,
        }
    }

    /// Segments that nobody has read.
    pub(super) fn unread(&self) -> usize {
        self.segments.len()
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.arrived = !self.arrived;
        if self.arrived {
            return Poll::Pending;
        }
        let Some(mut segment) = self.segments.pop_front() else {
            return match self.then {
                Then::Waits => Poll::Pending,
                Then::Closes => Poll::Ready(Ok(())),
                Then::Resets => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        };
        let rest = segment.split_off(segment.len().min(buffer.remaining()));
        buffer.put_slice(&segment);
        if !rest.is_empty() {
            self.segments.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

/// Polls `future` until it is ready or `polls` times; `None` if it still waits then.
pub(super) fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// What `read` makes of a visitor that sends `segments` and `then` ends; `None` if it waits for
/// more.
pub(super) fn read_from<T: AsRef<[u8]>>(
    segments: &[T],
    then: Then,
) -> Option<Result<FirstFlight, ReadError>> {
    let mut script = Script::new(segments, then);
    // One poll finds each segment or not; a big segment may take a few reads, which then are within
    // one of these polls.
    let polls = 64 + 3 * script.unread();
    poll_times(read(&mut script), polls)
}
