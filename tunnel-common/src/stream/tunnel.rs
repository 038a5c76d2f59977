//! One visit's stream, whatever the tunnel is made of.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::stream::H2Stream;
use super::quic::QuicStream;
use crate::splice::buffer::{BufferPool, Held};
use crate::splice::duplex::Duplex;
use crate::splice::end::{End, Halves};
use crate::wire::code::Code;

/// A stream of a tunnel. Dropped before both directions ended it resets the stream.
#[derive(Debug)]
pub enum TunnelStream {
    /// Of a QUIC connection.
    Quic(QuicStream),
    /// Of an HTTP/2 connection.
    H2(H2Stream),
}

/// The same expression for either kind of stream.
macro_rules! either {
    ($this:expr, $stream:ident => $do:expr) => {
        match $this {
            TunnelStream::Quic($stream) => $do,
            TunnelStream::H2($stream) => $do,
        }
    };
}

impl TunnelStream {
    /// Sends all chunks, the first in one write with the second. A cancelled call has sent an
    /// unknown part.
    pub async fn send_all(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        either!(self, stream => stream.send_all(chunks).await)
    }

    /// Ends both directions without complaint: what was written still arrives, and what the peer
    /// may still send is no longer wanted.
    pub fn conclude(&mut self) {
        either!(self, stream => stream.conclude());
    }
}

impl End for TunnelStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_take(cx, held, pool))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_put(cx, held))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => End::poll_flush(stream, cx))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_finish(cx))
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        either!(self, stream => stream.probe(cx))
    }

    fn abort(&mut self, code: Code) {
        either!(self, stream => stream.abort(code));
    }

    fn ends_soundly(&self) -> bool {
        either!(self, stream => stream.ends_soundly())
    }

    fn pinned_bytes(&self) -> u64 {
        either!(self, stream => stream.pinned_bytes())
    }

    fn is_discarding(&self) -> bool {
        either!(self, stream => stream.is_discarding())
    }
}

impl Duplex for TunnelStream {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.probe(cx)
    }

    fn part(&mut self, halves: Halves) {
        // TLS has ended both ways; the transport's own end behind it brings nothing new.
        if halves == Halves::Neither {
            self.conclude();
        }
    }

    fn break_off(&mut self, code: Code) {
        self.abort(code);
    }

    fn pinned(&self) -> u64 {
        self.pinned_bytes()
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => AsyncWrite::poll_flush(Pin::new(stream), cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
