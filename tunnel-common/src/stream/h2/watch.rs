//! What goes on beside the streams of one connection: is the peer there, and how large should the
//! windows be?
//!
//! Whoever moves the connection polls this too. The decisions are [`Pulse`]'s, and the budget's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::trace;

use super::pulse::{Next, Pulse};
use super::settings::Settings;
use crate::budget::{H2Window, H2Windows};
use crate::h2::STREAM_WINDOW;

/// A byte stream that counts what comes.
#[derive(Debug)]
pub(super) struct Counted<T> {
    inner: T,
    received: Arc<AtomicU64>,
}

impl<T> Counted<T> {
    pub(super) fn new(inner: T) -> (Self, Arc<AtomicU64>) {
        let received = Arc::<AtomicU64>::default();
        let counter = received.clone();
        (Self { inner, received }, counter)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        self.received.fetch_add(count as u64, Ordering::Relaxed);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The windows that a connection grants its peer.
pub(super) trait Windows {
    /// Of each stream. Fails while an earlier change has not been confirmed.
    fn set_stream(&mut self, bytes: u32) -> Result<(), h2::Error>;
    /// Of all streams together.
    fn set_connection(&mut self, bytes: u32);
}

/// What has come of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// Nothing: the task is woken when there is more to do.
    Quiet,
    /// The connection has something to send.
    Changed,
    /// The peer is gone.
    Dead,
}

/// One connection's watch.
pub(super) struct Watch {
    pings: Option<PingPong>,
    pulse: Pulse,
    received: Arc<AtomicU64>,
    timer: Pin<Box<Sleep>>,
    /// Ready when the budget has changed, and gives itself back.
    changing: Pin<Box<dyn Future<Output = H2Windows> + Send>>,
    /// How the windows should stand.
    wanted: H2Window,
    /// What each stream is granted, and what all are.
    stream: u32,
    connection: u32,
}

impl Watch {
    /// What has come so far, in bytes.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// Of a connection that was made just now with the windows [`STREAM_WINDOW`] and `connection`.
    /// Without `pings` somebody else asks the peer.
    pub(super) fn new(
        pings: Option<PingPong>,
        received: Arc<AtomicU64>,
        connection: u32,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        let mut windows = settings.budget.h2_windows();
        Self {
            pings,
            pulse: Pulse::new(settings.ping_every, settings.silence, now),
            received,
            timer: Box::pin(sleep_until(now)),
            wanted: windows.now(),
            changing: Box::pin(windows.changed()),
            stream: STREAM_WINDOW,
            connection,
        }
    }

    #[cfg(test)]
    pub(super) fn pulse_mut(&mut self) -> &mut Pulse {
        &mut self.pulse
    }

    /// Looks after the connection. To be called behind whatever reads it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, windows: &mut impl Windows) -> Watched {
        let now = Instant::now();
        let received = self.received.load(Ordering::Relaxed);
        self.pulse.received(received, now);
        self.hear(cx, now);
        self.follow(cx);
        let has_changed = self.set(windows);
        match self.ask(cx, now) {
            Watched::Quiet if has_changed => Watched::Changed,
            other => other,
        }
    }

    /// Takes an answer.
    fn hear(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(pings) = &mut self.pings else { return };
        // An error is the connection's, and told there.
        if let Poll::Ready(Ok(_)) = pings.poll_pong(cx) {
            self.pulse.answered(now);
            trace!(pulse = ?self.pulse, "an answer");
        }
    }

    fn follow(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(mut windows) = self.changing.as_mut().poll(cx) {
            self.wanted = windows.now();
            self.changing = Box::pin(windows.changed());
        }
    }

    fn set(&mut self, windows: &mut impl Windows) -> bool {
        if self.wanted.is_short {
            self.pulse.shrink();
        }
        let before = (self.stream, self.connection);
        let (stream, connection) = (self.pulse.window(), self.wanted.connection);
        // Refused while an earlier change is under way: its end wakes us.
        if stream != self.stream && windows.set_stream(stream).is_ok() {
            self.stream = stream;
        }
        if connection != self.connection {
            windows.set_connection(connection);
            self.connection = connection;
        }
        before != (self.stream, self.connection)
    }

    fn ask(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Watched {
        let Some(pings) = &mut self.pings else {
            return Watched::Quiet;
        };
        loop {
            match self.pulse.next(now) {
                Next::Dead => return Watched::Dead,
                // Refused only when the connection is gone.
                Next::Ask if pings.send_ping(Ping::opaque()).is_err() => return Watched::Quiet,
                Next::Ask => {
                    self.pulse.asked(now);
                    return Watched::Changed;
                }
                Next::Wait(at) => {
                    // One that ends too early costs less than to set it again for every byte.
                    if at < self.timer.deadline() || self.timer.is_elapsed() {
                        self.timer.as_mut().reset(at);
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Watched::Quiet;
                    }
                    now = Instant::now();
                }
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("pulse", &self.pulse)
            .finish_non_exhaustive()
    }
}
