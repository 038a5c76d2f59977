//! The byte stream under a connection: what goes through it is counted, and what must not wait does not.
//!
//! h2 reads nothing while it owes the peer an answer that it can not write. Where both ends owe one, and
//! the path is full both ways, neither would ever read again. So when h2 has read nothing because it could
//! not write, what it wants to write is taken aside, a bounded amount, until the path takes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::meter::Meter;

/// The most that is taken aside: a codec's buffers, again and again, for a peer that goes on asking.
const MAX_ASIDE_BYTES: usize = 256 * 1024;

/// What is known of a stream beside the stream itself. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes that have come.
    received: Arc<AtomicU64>,
    /// How often a write went on that had to wait.
    moved: AtomicU64,
    has_read: AtomicBool,
    is_blocked: AtomicBool,
    may_be_aside: AtomicBool,
}

impl Traffic {
    /// Bytes that have come so far.
    pub(super) fn received(&self) -> Arc<AtomicU64> {
        self.0.received.clone()
    }

    /// Changes whenever the peer has made room for what had to wait.
    pub(super) fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// h2 is about to be polled.
    pub(super) fn begin(&self) {
        self.0.has_read.store(false, Ordering::Relaxed);
        self.0.is_blocked.store(false, Ordering::Relaxed);
    }

    /// Whether h2, having been polled, has read nothing because it could not write. Then what it writes
    /// next is taken aside until it reads: it should be polled again, once.
    pub(super) fn relieve(&self) -> bool {
        let is_stuck =
            self.0.is_blocked.load(Ordering::Relaxed) && !self.0.has_read.load(Ordering::Relaxed);
        self.0.may_be_aside.store(is_stuck, Ordering::Relaxed);
        is_stuck
    }
}

/// A byte stream whose traffic is watched.
#[derive(Debug)]
pub(super) struct Watched<T> {
    inner: T,
    traffic: Traffic,
    meter: Meter,
    aside: BytesMut,
    had_to_wait: bool,
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// Before the first frame so many bytes come.
    pub(super) fn new(inner: T, preface_bytes: usize) -> (Self, Traffic) {
        let traffic = Traffic::default();
        let watched = Self {
            inner,
            traffic: traffic.clone(),
            meter: Meter::new(preface_bytes, Instant::now()),
            aside: BytesMut::new(),
            had_to_wait: false,
        };
        (watched, traffic)
    }

    /// Takes note of what a write has come to.
    fn noted<W>(&mut self, write: Poll<io::Result<W>>) -> Poll<io::Result<W>> {
        let shared = &self.traffic.0;
        match &write {
            Poll::Pending => {
                self.had_to_wait = true;
                shared.is_blocked.store(true, Ordering::Relaxed);
            }
            Poll::Ready(_) if self.had_to_wait => {
                self.had_to_wait = false;
                shared.moved.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Ready(_) => {}
        }
        write
    }

    /// Writes what was taken aside.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.aside.is_empty() {
            let write = Pin::new(&mut self.inner).poll_write(cx, &self.aside);
            let written = ready!(self.noted(write))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.aside.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn room_aside(&self) -> usize {
        if self.traffic.0.may_be_aside.load(Ordering::Relaxed) {
            MAX_ASIDE_BYTES.saturating_sub(self.aside.len())
        } else {
            0
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.traffic.0.has_read.store(true, Ordering::Relaxed);
        this.traffic.0.may_be_aside.store(false, Ordering::Relaxed);
        // h2 thinks that it has written it, and may not write again.
        if let Poll::Ready(Err(error)) = this.poll_aside(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        let received = &this.traffic.0.received;
        received.fetch_add(new.len() as u64, Ordering::Relaxed);
        if !new.is_empty() {
            let counted = this.meter.feed(new, Instant::now());
            counted.map_err(|flood| io::Error::new(io::ErrorKind::InvalidData, flood))?;
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let write = match this.poll_aside(cx)? {
            Poll::Ready(()) => {
                let write = Pin::new(&mut this.inner).poll_write(cx, bytes);
                this.noted(write)
            }
            Poll::Pending => Poll::Pending,
        };
        let room = this.room_aside().min(bytes.len());
        if write.is_pending() && room > 0 {
            this.aside.extend_from_slice(&bytes[..room]);
            return Poll::Ready(Ok(room));
        }
        write
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.aside.is_empty() && this.room_aside() == 0 {
            let write = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
            return this.noted(write);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[], |slice| slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.poll_aside(cx)?.is_pending() {
            return if this.room_aside() > 0 {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_aside(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
