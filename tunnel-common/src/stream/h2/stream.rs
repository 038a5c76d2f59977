//! One HTTP/2 stream as one visit's stream.
//!
//! It is an [`End`] for a splice that takes h2's own chunks, and it reads and writes like any byte
//! stream, for TLS on top. HTTP/2 knows no reset of one direction: one that was finished before
//! is kept from it, here by waiting until it has left, at the peer by what its h2 remembers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::fault;
use super::halves::{ReadHalf, WriteHalf};
use super::incoming::Incoming;
use super::leaving::Exit;
use super::outgoing::{Outgoing, Stopped};
use crate::h2::STREAM_WINDOW;
use crate::splice::buffer::{BufferPool, Held, MAX_BUFFER_BYTES};
use crate::splice::end::{End, Halves};
use crate::wire::code::Code;

/// Chunks that one take asks for: as many as one vectored write passes on.
const CHUNKS_PER_TAKE: usize = 64;

/// One visit's stream. Dropped before both directions ended it is reset with [`Code::None`]:
/// the peer must not take it for a clean end. It moves only while the connection is driven.
#[derive(Debug)]
pub struct H2Stream {
    /// `None` once it is over.
    parts: Option<Parts>,
    exit: Exit,
    halves: Halves,
    wanted: Wanted,
}

#[derive(Debug)]
struct Parts {
    incoming: Incoming,
    outgoing: Outgoing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Wanted,
    /// The peer reset the stream with code 0: it has all it needs.
    Discarded,
}

impl H2Stream {
    pub(super) fn opened(
        response: ResponseFuture,
        send: SendStream<Bytes>,
        permit: OwnedSemaphorePermit,
        exit: Exit,
    ) -> Self {
        Self::new(Incoming::unanswered(response, permit), send, exit)
    }

    pub(super) fn accepted(body: RecvStream, send: SendStream<Bytes>, exit: Exit) -> Self {
        Self::new(Incoming::open(body), send, exit)
    }

    fn new(incoming: Incoming, send: SendStream<Bytes>, exit: Exit) -> Self {
        let outgoing = Outgoing::new(send);
        Self {
            parts: Some(Parts { incoming, outgoing }),
            exit,
            halves: Halves::default(),
            wanted: Wanted::Wanted,
        }
    }

    /// Sends all of `chunks` without copying them.
    ///
    /// Waits for the peer's window; a cancelled call has sent an unknown part.
    pub async fn send_all(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        for chunk in chunks {
            while !chunk.is_empty() {
                let sent = poll_fn(|cx| match &mut self.parts {
                    Some(parts) => parts.outgoing.poll_send_piece(cx, chunk),
                    None => Poll::Ready(Err(Stopped::Gone(fault::ended()))),
                });
                sent.await?;
            }
        }
        Ok(())
    }

    /// Ends both directions without complaint: what was written still arrives, and what the peer
    /// may still send is no longer wanted.
    pub fn conclude(&mut self) {
        // Fails only on a stream that is closed already: then the peer wants no more, or knows.
        let _ = self.finish();
        self.reset(Code::None);
    }

    /// The two directions apart, for a stream that carries control frames.
    pub fn split(mut self) -> io::Result<(ReadHalf, WriteHalf)> {
        let Parts { incoming, outgoing } = self.parts.take().ok_or_else(fault::ended)?;
        Ok((ReadHalf::new(incoming), WriteHalf::new(outgoing)))
    }

    fn parts(&mut self) -> io::Result<&mut Parts> {
        self.parts.as_mut().ok_or_else(fault::ended)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, held: &Held) -> Poll<Result<usize, Stopped>> {
        let Some(parts) = &mut self.parts else {
            return Poll::Ready(Err(Stopped::Gone(fault::ended())));
        };
        match held {
            Held::Chunks(chunks) => {
                let mut first = chunks.front().cloned().unwrap_or_default();
                parts.outgoing.poll_send_piece(cx, &mut first)
            }
            _ => parts.outgoing.poll_send(cx, held.first()),
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.halves, Halves::OnlyOut | Halves::Neither)
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.is_finished() {
            return Ok(());
        }
        match self.parts()?.outgoing.finish() {
            Err(Stopped::Reset(Code::None)) | Ok(()) => {
                self.halves.in_ended();
                Ok(())
            }
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// What was finished is not harmed by it.
    fn reset(&mut self, code: Code) {
        let Some(Parts {
            incoming,
            mut outgoing,
        }) = self.parts.take()
        else {
            return;
        };
        if incoming.is_answered() && !self.is_finished() {
            outgoing.reset(code);
        } else {
            self.exit.leave(incoming, outgoing, code);
        }
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        if self.halves != Halves::Neither {
            self.reset(Code::None);
        }
    }
}

impl End for H2Stream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        _: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        let incoming = &mut self.parts()?.incoming;
        let (mut chunks, mut taken) = (VecDeque::new(), 0);
        while chunks.len() < CHUNKS_PER_TAKE && taken < MAX_BUFFER_BYTES {
            match incoming.poll_piece(cx) {
                Poll::Ready(Ok(Some(piece))) => {
                    taken += piece.len();
                    chunks.push_back(piece);
                }
                // An end and an error are told again behind what was taken.
                _ if taken > 0 => break,
                Poll::Ready(Ok(None)) => {
                    self.halves.out_ended();
                    return Poll::Ready(Ok(0));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        incoming.grant(taken);
        *held = Held::Chunks(chunks);
        Poll::Ready(Ok(taken))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        let put = match ready!(self.poll_send(cx, held)) {
            Ok(put) => put,
            Err(Stopped::Reset(Code::None)) => {
                self.wanted = Wanted::Discarded;
                held.first().len()
            }
            Err(stopped) => return Poll::Ready(Err(stopped.into())),
        };
        held.advance(put);
        Poll::Ready(Ok(put))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(parts) = &mut self.parts else {
            return Ok(());
        };
        parts.incoming.keep(cx);
        match parts.outgoing.stopped(cx) {
            Some(Stopped::Reset(Code::None)) => {
                self.wanted = Wanted::Discarded;
                Ok(())
            }
            Some(Stopped::Reset(code)) => Err(fault::reset(code)),
            // The connection went, and what had arrived before can still be read: then reading tells.
            _ => Ok(()),
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
        let window = self.parts.as_ref().map(|parts| parts.incoming.window());
        window.unwrap_or(STREAM_WINDOW.into())
    }

    fn is_discarding(&self) -> bool {
        self.wanted == Wanted::Discarded
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.parts()?.incoming.poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            self.halves.out_ended();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
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
        let outgoing = &mut self.parts()?.outgoing;
        outgoing.poll_send_vectored(cx, slices).map_err(Into::into)
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
