//! The direction that goes to the peer.
//!
//! h2 takes whatever it is given and queues it, and a reset throws its queue away. So bytes are
//! given to it only when the peer's window has room for them, and it is known when they have left.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::SendStream;
use http::{HeaderMap, HeaderValue};

use super::fault;
use crate::h2::{END, code, reason};
use crate::wire::code::Code;

/// What one piece may take of the connection's window: four frames, so that others get their turn.
const MAX_PIECE_BYTES: usize = 64 * 1024;
/// Pieces of one stream that may wait for the socket. Past that its source is not read, and what
/// gathers there makes larger pieces.
const MAX_UNSENT_PIECES: usize = 16;

/// Counts what h2 still holds of a stream.
#[derive(Debug, Default)]
pub(super) struct Queue {
    unsent: AtomicUsize,
    waker: AtomicWaker,
}

impl Queue {
    /// Ready when at most `pieces` wait for the socket, or were thrown away.
    pub(super) fn poll_at_most(&self, cx: &mut Context<'_>, pieces: usize) -> Poll<()> {
        if self.unsent.load(Ordering::Acquire) > pieces {
            self.waker.register(cx.waker());
            if self.unsent.load(Ordering::Acquire) > pieces {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Bytes that h2 holds; it drops them when they have left for the socket, or will never do so.
struct Piece {
    bytes: Bytes,
    queue: Arc<Queue>,
}

impl Piece {
    fn tracked(bytes: Bytes, queue: &Arc<Queue>) -> Bytes {
        queue.unsent.fetch_add(1, Ordering::AcqRel);
        let queue = queue.clone();
        Bytes::from_owner(Self { bytes, queue })
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.queue.unsent.fetch_sub(1, Ordering::AcqRel);
        self.queue.waker.wake();
    }
}

/// Why no more can be sent.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The peer has reset the stream.
    Reset(Code),
    /// The connection is gone, or we have ended the stream ourselves.
    Gone(io::Error),
}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Reset(code) => fault::reset(code),
            Stopped::Gone(error) => error,
        }
    }
}

/// What goes to the peer. Dropping it resets the stream only once nobody holds any part of it.
#[derive(Debug)]
pub(super) struct Outgoing {
    send: SendStream<Bytes>,
    queue: Arc<Queue>,
}

impl Outgoing {
    pub(super) fn new(send: SendStream<Bytes>) -> Self {
        let queue = Arc::default();
        Self { send, queue }
    }

    /// How many of `wanted` bytes can be sent now, at least one. What was reserved for a call that
    /// never came back is given to others by the next.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Stopped>> {
        ready!(self.queue.poll_at_most(cx, MAX_UNSENT_PIECES - 1));
        let wanted = wanted.min(MAX_PIECE_BYTES);
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room.min(wanted)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Stopped::Gone(fault::broken(error)))),
                None => return Poll::Ready(Err(self.why_stopped())),
            }
        }
    }

    /// Sends part of `bytes`, which are not empty: an empty frame counts as an attack.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Stopped>> {
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        self.push(Bytes::copy_from_slice(&bytes[..room]))?;
        Poll::Ready(Ok(room))
    }

    /// The same without copying: what was sent is cut off `bytes`.
    pub(super) fn poll_send_piece(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<usize, Stopped>> {
        let room = ready!(self.poll_room(cx, bytes.len()))?;
        self.push(bytes.split_to(room))?;
        Poll::Ready(Ok(room))
    }

    /// Sends all pieces together, as far as there is room. TLS gives its last alert one write,
    /// together with the records before it: a write of the first only would lose it.
    pub(super) fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Stopped>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_room(cx, total))?;
        let mut joined = Vec::with_capacity(room);
        for slice in slices {
            let part = slice.len().min(room - joined.len());
            joined.extend_from_slice(&slice[..part]);
        }
        self.push(joined.into())?;
        Poll::Ready(Ok(room))
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Stopped> {
        let piece = Piece::tracked(bytes, &self.queue);
        let sent = self.send.send_data(piece, false);
        sent.map_err(|_| self.why_stopped())
    }

    /// Ends this direction behind what was sent. Once only.
    pub(super) fn finish(&mut self) -> Result<(), Stopped> {
        let tracked = Piece::tracked(Bytes::new(), &self.queue);
        // An empty value is always a valid one.
        let mut value = HeaderValue::from_maybe_shared(tracked)
            .map_err(|error| Stopped::Gone(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        // Or else it would be kept in the table that compresses headers.
        value.set_sensitive(true);
        let trailers = HeaderMap::from_iter([(END, value)]);
        let sent = self.send.send_trailers(trailers);
        sent.map_err(|_| self.why_stopped())
    }

    /// Whether the peer has reset the stream or the connection is gone, which sending would tell.
    pub(super) fn stopped(&mut self, cx: &mut Context<'_>) -> Option<Stopped> {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => Some(Stopped::Reset(code(reason))),
            Poll::Ready(Err(error)) => Some(Stopped::Gone(fault::broken(error))),
            Poll::Pending => None,
        }
    }

    /// What to say when h2 takes no more: a stream that can not change any more wakes nobody.
    fn why_stopped(&mut self) -> Stopped {
        let stopped = self.stopped(&mut Context::from_waker(Waker::noop()));
        stopped.unwrap_or_else(|| Stopped::Gone(fault::ended()))
    }

    /// Ready when all that was sent, its end too, has left for the socket or never will.
    pub(super) fn poll_sent(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.queue.poll_at_most(cx, 0)
    }

    /// Ends both directions; what has not left yet is thrown away.
    pub(super) fn reset(&mut self, code: Code) {
        self.send.send_reset(reason(code));
    }
}
