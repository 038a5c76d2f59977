//! Anything that reads and writes as an end of a splice.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::{BufferPool, Held};
use super::end::{End, Halves};
use super::io::{self as pieces, ReadSize};
use crate::wire::code::Code;

/// A byte stream whose shutting down ends cleanly what goes into it, and that a [`DuplexEnd`] makes
/// an end of a splice.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Looks whether it has broken while nobody reads from it: see [`End::probe`].
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Prepares for being dropped, which follows at once. `halves` did not end cleanly, and must
    /// not look as if they had.
    fn part(&mut self, halves: Halves);

    /// Tells the peer `code`, where that can be said at all: see [`End::abort`]. Being dropped
    /// with both halves open follows.
    fn break_off(&mut self, _: Code) {}

    /// See [`End::ends_soundly`].
    fn is_sound(&self) -> bool {
        false
    }

    /// See [`End::pinned_bytes`].
    fn pinned(&self) -> u64 {
        0
    }
}

/// A [`Duplex`] stream as an end. Dropped before both directions ended cleanly, or aborted, it
/// parts with what is open.
#[derive(Debug)]
pub struct DuplexEnd<D: Duplex> {
    stream: D,
    read_size: ReadSize,
    halves: Halves,
}

impl<D: Duplex> DuplexEnd<D> {
    /// Takes a connected stream, any handshake complete.
    pub fn new(stream: D) -> Self {
        Self {
            stream,
            read_size: ReadSize::default(),
            halves: Halves::default(),
        }
    }
}

impl<D: Duplex> End for DuplexEnd<D> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        let taken = pieces::poll_take(&mut self.stream, cx, &mut self.read_size, held, pool);
        if matches!(taken, Poll::Ready(Ok(0))) {
            self.halves.out_ended();
        }
        taken
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        pieces::poll_put(&mut self.stream, cx, held)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = Pin::new(&mut self.stream).poll_shutdown(cx);
        if matches!(finished, Poll::Ready(Ok(()))) {
            self.halves.in_ended();
        }
        finished
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.stream.check(cx)
    }

    fn abort(&mut self, code: Code) {
        self.stream.break_off(code);
        self.halves = Halves::Both;
    }

    fn ends_soundly(&self) -> bool {
        self.stream.is_sound()
    }

    fn pinned_bytes(&self) -> u64 {
        self.stream.pinned()
    }
}

impl<D: Duplex> Drop for DuplexEnd<D> {
    fn drop(&mut self) {
        self.stream.part(self.halves);
    }
}
