//! A bidirectional QUIC stream as one visit's stream.
//!
//! It is an [`End`] for a splice that takes quinn's own chunks, and it reads and writes like any
//! byte stream, for TLS on top. quinn ends a dropped stream cleanly, so that a transfer which was
//! cut short looks whole; this one resets unless it was finished.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::quic::MAX_STREAM_WINDOW;
use crate::splice::buffer::{BufferPool, Held};
use crate::splice::end::{End, Halves};
use crate::wire::code::Code;

/// Chunks that one take asks of quinn: as many as one vectored write passes on.
const CHUNKS_PER_TAKE: usize = 64;
/// Past this much in one direction a visit is bulk, and yields to those that are not. 4 MiB is a
/// large page, and a window.
const BULK_BYTES: u64 = 4 * 1024 * 1024;
/// The priority of bulk; visits begin with 0.
const BULK_PRIORITY: i32 = -1;
/// The priority of the control stream, which must not wait behind visits.
pub const CONTROL_PRIORITY: i32 = 2;

/// One visit's stream. Dropped before both directions ended it is reset with [`Code::None`]:
/// the peer must not take it for a clean end.
#[derive(Debug)]
pub struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    sent: u64,
    halves: Halves,
    outgoing: Outgoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    Wanted,
    /// The peer stopped us with code 0: it has all it needs.
    Discarded,
}

impl QuicStream {
    /// Takes the two halves of one bidirectional stream.
    pub fn new(send: SendStream, recv: RecvStream) -> Self {
        let (halves, outgoing) = (Halves::default(), Outgoing::Wanted);
        Self {
            send,
            recv,
            sent: 0,
            halves,
            outgoing,
        }
    }

    /// Sends all of `chunks` without copying them, the first in one packet with the second.
    ///
    /// Waits for the peer's window; a cancelled call has sent an unknown part.
    pub async fn send_all(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        self.sent += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        Ok(self.send.write_all_chunks(chunks).await?)
    }

    /// Ends both directions without complaint: what was written still arrives, and what the peer
    /// may still send is no longer wanted.
    pub fn conclude(&mut self) {
        self.finish();
        self.halves = Halves::Neither;
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        let sent = ready!(Pin::new(&mut self.send).poll_write(cx, bytes))?;
        let before = self.sent;
        self.sent += sent as u64;
        if before <= BULK_BYTES && self.sent > BULK_BYTES {
            // Fails only on a stream that is closed, where there is nothing left to order.
            let _ = self.send.set_priority(BULK_PRIORITY);
        }
        Poll::Ready(Ok(sent))
    }

    fn finish(&mut self) {
        // Fails only on a stream that is closed already: then the peer wants no more, or knows.
        let _ = self.send.finish();
        self.halves.in_ended();
    }

    fn reset(&mut self, code: Code) {
        // Both fail only on a stream that is closed already. What was finished stays: quinn would
        // throw away what is not yet acknowledged of it.
        if matches!(self.halves, Halves::Both | Halves::OnlyIn) {
            let _ = self.send.reset(code.into());
        }
        let _ = self.recv.stop(code.into());
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        if self.halves != Halves::Neither {
            self.reset(Code::None);
        }
    }
}

impl End for QuicStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        _: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        let mut chunks = [const { Bytes::new() }; CHUNKS_PER_TAKE];
        // The future holds nothing between polls: a new one each time is as good as one kept.
        let count = ready!(pin!(self.recv.read_chunks(&mut chunks)).poll(cx))?;
        let Some(count) = count else {
            self.halves.out_ended();
            return Poll::Ready(Ok(0));
        };
        let taken = chunks[..count].iter().map(Bytes::len).sum();
        *held = Held::Chunks(chunks.into_iter().take(count).collect());
        Poll::Ready(Ok(taken))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        let put = match ready!(self.poll_send(cx, held.first())) {
            Ok(put) => put,
            Err(WriteError::Stopped(code)) if Code::from(code) == Code::None => {
                self.outgoing = Outgoing::Discarded;
                held.first().len()
            }
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        held.advance(put);
        Poll::Ready(Ok(put))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }

    /// A write of nothing tells whether the peer has stopped us. `SendStream::stopped` and
    /// `RecvStream::received_reset` would too, but each leaves a waker in the connection that
    /// outlives a stream which ends otherwise.
    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match Pin::new(&mut self.send).poll_write(cx, &[]) {
            Poll::Ready(Err(WriteError::Stopped(code))) if Code::from(code) == Code::None => {
                self.outgoing = Outgoing::Discarded;
                Ok(())
            }
            // We have ended it ourselves: then the clocks must do.
            Poll::Ready(Err(WriteError::ClosedStream)) => Ok(()),
            // What had arrived before the connection went can still be read; then reading tells.
            Poll::Ready(Err(WriteError::ConnectionLost(_))) => Ok(()),
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    fn abort(&mut self, code: Code) {
        self.reset(code);
        self.halves = Halves::Neither;
    }

    fn ends_soundly(&self) -> bool {
        true
    }

    fn pinned_bytes(&self) -> u64 {
        MAX_STREAM_WINDOW
    }

    fn is_discarding(&self) -> bool {
        self.outgoing == Outgoing::Discarded
    }
}

/// For TLS on top. What is not concluded is reset when it is dropped.
impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            self.halves.out_ended();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes).map_err(Into::into)
    }

    /// TLS gives its last alert one write, together with the records before it: one that took the
    /// first record only would lose it.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut sent = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match self.poll_send(cx, slice) {
                Poll::Ready(Ok(part)) => {
                    sent += part;
                    if part < slice.len() {
                        break;
                    }
                }
                // What was sent counts; the rest is told by the next call.
                _ if sent > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
