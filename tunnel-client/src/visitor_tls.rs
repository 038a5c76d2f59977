//! A visitor's decrypted stream as an end of a splice.
//!
//! A close without `close_notify` is a cut, not an end (RFC 8446, 6.1): the relay, or whoever stands
//! between, could otherwise shorten a transfer unseen. rustls reports it as an error on read, which
//! the splice turns into a reset of the local service's connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;
use tokio_rustls::server::TlsStream;
use tunnel_common::splice::buffer::{BufferPool, Held};
use tunnel_common::splice::end::{End, Halves};
use tunnel_common::splice::io::{self as pieces, ReadSize};
use tunnel_common::stream::quic::QuicStream;
use tunnel_common::wire::code::Code;

/// TLS over one visit's stream, after the handshake. Dropped before both directions ended it
/// resets the stream.
#[derive(Debug)]
pub(crate) struct VisitorTls {
    tls: TlsStream<QuicStream>,
    read_size: ReadSize,
    halves: Halves,
}

impl VisitorTls {
    /// Takes a stream whose handshake is complete.
    pub(crate) fn new(tls: TlsStream<QuicStream>) -> Self {
        Self {
            tls,
            read_size: ReadSize::default(),
            halves: Halves::default(),
        }
    }

    fn stream(&mut self) -> &mut QuicStream {
        self.tls.get_mut().0
    }
}

impl End for VisitorTls {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        let taken = pieces::poll_take(&mut self.tls, cx, &mut self.read_size, held, pool);
        if matches!(taken, Poll::Ready(Ok(0))) {
            self.halves.out_ended();
        }
        taken
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        pieces::poll_put(&mut self.tls, cx, held)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = Pin::new(&mut self.tls).poll_shutdown(cx);
        if matches!(finished, Poll::Ready(Ok(()))) {
            self.halves.in_ended();
        }
        finished
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.stream().probe(cx)
    }

    fn abort(&mut self, code: Code) {
        self.stream().abort(code);
    }

    fn ends_soundly(&self) -> bool {
        true
    }

    fn pinned_bytes(&self) -> u64 {
        self.tls.get_ref().0.pinned_bytes()
    }
}

impl Drop for VisitorTls {
    fn drop(&mut self) {
        // TLS has ended both ways; the transport's own end behind it brings nothing new.
        if self.halves == Halves::Neither {
            self.stream().conclude();
        }
    }
}
