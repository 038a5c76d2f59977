//! A TCP connection as an end of a splice.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::buffer::{BufferPool, Held};
use super::end::{End, Halves};
use super::io::{self as pieces, ReadSize};
use crate::wire::code::Code;

/// A visitor's or a local service's connection. Dropped before what goes into it has ended cleanly
/// it sends RST; aborted it does so in any case.
#[derive(Debug)]
pub struct TcpEnd {
    stream: TcpStream,
    read_size: ReadSize,
    halves: Halves,
}

impl TcpEnd {
    /// Takes a connected stream.
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read_size: ReadSize::default(),
            halves: Halves::default(),
        }
    }
}

impl End for TcpEnd {
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

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = Pin::new(&mut self.stream).poll_shutdown(cx);
        if matches!(finished, Poll::Ready(Ok(()))) {
            self.halves.in_ended();
        }
        finished
    }

    /// An RST does not wake a reader that is not there: the socket's error tells.
    fn probe(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        self.stream.take_error()?.map_or(Ok(()), Err)
    }

    fn abort(&mut self, _: Code) {
        self.halves = Halves::Both;
    }
}

impl Drop for TcpEnd {
    fn drop(&mut self) {
        // RST at once throws away what the kernel has not sent yet: not after a clean end of it.
        if matches!(self.halves, Halves::Both | Halves::OnlyIn) {
            // Fails only on a socket that is gone already, and then nothing is left to say.
            let _ = self.stream.set_zero_linger();
        }
    }
}
