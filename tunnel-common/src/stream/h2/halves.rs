//! The two directions of a stream apart, each in a task of its own: for control.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::incoming::Incoming;
use super::outgoing::Outgoing;
use crate::wire::code::Code;

/// What the peer sends. Dropping it says nothing to the peer as long as the other half is there.
#[derive(Debug)]
pub struct ReadHalf(Incoming);

impl ReadHalf {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self(incoming)
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

/// What goes to the peer. Dropped before it was ended it resets the stream, both directions, with
/// [`Code::None`].
#[derive(Debug)]
pub struct WriteHalf {
    outgoing: Outgoing,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

impl WriteHalf {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        let state = State::Open;
        Self { outgoing, state }
    }

    /// Ends the stream, and waits until all that was sent has been given to the socket, or the
    /// connection is gone. That the peer has it shows only by what the peer does then: read on
    /// until its end. The caller sets the deadline.
    pub async fn end(mut self) {
        if self.finish().is_ok() {
            poll_fn(|cx| self.outgoing.poll_sent(cx)).await;
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.state == State::Open {
            self.outgoing.finish()?;
            self.state = State::Ended;
        }
        Ok(())
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.outgoing.reset(Code::None);
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.outgoing.poll_send_vectored(cx, slices);
        sent.map_err(Into::into)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}
