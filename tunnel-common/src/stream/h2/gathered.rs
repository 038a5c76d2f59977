//! What h2 writes in one turn, gathered so that it leaves together.
//!
//! h2 flushes behind every frame of some size, and each flush is a TLS record and a system call, though the
//! answers of other visits are next. While [`Gathering::hold`] is in force a flush only takes note; whoever
//! drives the connection lets go, and polls h2 once more, whose turn ends with a flush.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::{io, iter};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most: four full TLS records. More is written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether flushes are held back. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathering(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    holds: AtomicBool,
    is_owed: AtomicBool,
}

impl Gathering {
    /// Holds flushes back from now on, or no more.
    pub(super) fn hold(&self, holds: bool) {
        self.0.holds.store(holds, Ordering::Relaxed);
        self.0.is_owed.store(false, Ordering::Relaxed);
    }

    /// Whether one was held back since that had something to write.
    pub(super) fn owes_a_flush(&self) -> bool {
        self.0.is_owed.load(Ordering::Relaxed)
    }
}

/// A byte stream whose writes are gathered. The room for that it gives back at the first turn that needs none:
/// many connections stand still.
#[derive(Debug)]
pub(super) struct Gathered<T> {
    inner: T,
    gathered: Vec<u8>,
    /// Of these, what is written already.
    written: usize,
    gathering: Gathering,
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    /// Nothing is held back yet.
    pub(super) fn new(inner: T) -> (Self, Gathering) {
        let gathering = Gathering::default();
        let gathered = Self {
            inner,
            gathered: vec![],
            written: 0,
            gathering: gathering.clone(),
        };
        (gathered, gathering)
    }

    /// Whether what is written now is not gathered: h2 writes its first bytes before anybody drives it.
    fn passes_on(&self) -> bool {
        !self.gathering.0.holds.load(Ordering::Relaxed) && self.gathered.is_empty()
    }

    /// Writes all that was gathered.
    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            self.gathered = vec![];
            return Poll::Ready(Ok(()));
        }
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.gathered.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gathers these, once there is room for one more byte.
    fn poll_gather<'a>(
        &mut self,
        cx: &mut Context<'_>,
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= BUFFER_BYTES {
            ready!(self.poll_write_gathered(cx))?;
        }
        let before = self.gathered.len();
        for slice in slices {
            let room = BUFFER_BYTES - self.gathered.len();
            self.gathered
                .extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Poll::Ready(Ok(self.gathered.len() - before))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.passes_on() {
            true => Pin::new(&mut self.inner).poll_write(cx, bytes),
            false => self.poll_gather(cx, iter::once(bytes)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.passes_on() {
            true => Pin::new(&mut self.inner).poll_write_vectored(cx, slices),
            false => self.poll_gather(cx, slices.iter().map(|slice| &**slice)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flags = &self.gathering.0;
        if flags.holds.load(Ordering::Relaxed) {
            let is_empty = self.gathered.is_empty();
            flags.is_owed.fetch_or(!is_empty, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_held_back_leaves_in_one_piece() {
        let (near, mut far) = duplex(1024);
        let (mut gathered, gathering) = Gathered::new(near);
        gathering.hold(true);
        for word in ["one ", "two"] {
            gathered.write_all(word.as_bytes()).await.expect("takes it");
            gathered.flush().await.expect("takes note");
        }
        assert!(gathering.owes_a_flush());
        gathering.hold(false);
        gathered.flush().await.expect("writes");
        assert!(!gathering.owes_a_flush());
        let mut read = [0; 16];
        let count = far.read(&mut read).await.expect("reads");
        assert_eq!(&read[..count], b"one two");
    }

    #[tokio::test]
    async fn an_end_takes_with_it_what_was_held_back() {
        let (near, mut far) = duplex(1024);
        let (mut gathered, gathering) = Gathered::new(near);
        gathering.hold(true);
        gathered.write_all(b"the last").await.expect("takes it");
        gathered.shutdown().await.expect("ends");
        let mut read = vec![];
        far.read_to_end(&mut read).await.expect("reads");
        assert_eq!(read, b"the last");
    }

    #[tokio::test]
    async fn a_flush_of_nothing_is_not_owed() {
        let (near, _far) = duplex(1024);
        let (mut gathered, gathering) = Gathered::new(near);
        gathering.hold(true);
        gathered.flush().await.expect("takes note");
        assert!(!gathering.owes_a_flush());
    }
}
