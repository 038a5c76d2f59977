//! Taking from and putting into anything that reads and writes: the common half of most
//! [`End`](super::end::End)s.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::{BufferPool, Held, MAX_BUFFER_BYTES, MIN_BUFFER_BYTES};

/// Pieces that one vectored write takes: 64 datagrams' worth, far below the kernel's 1024.
const MAX_SLICES: usize = 64;

/// How much the next read should ask for: it follows what reads bring.
#[derive(Clone, Copy, Debug)]
pub struct ReadSize(usize);

impl Default for ReadSize {
    fn default() -> Self {
        Self(MIN_BUFFER_BYTES)
    }
}

impl ReadSize {
    fn next(self, asked: usize, got: usize) -> Self {
        if got == asked {
            Self((asked * 2).min(MAX_BUFFER_BYTES))
        } else {
            self
        }
    }
}

/// Reads once into a buffer of `size`, which grows while reads fill it and starts over when
/// nothing is there to read.
pub fn poll_take(
    io: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    size: &mut ReadSize,
    held: &mut Held,
    pool: &BufferPool,
) -> Poll<io::Result<usize>> {
    let mut buffer = pool.take(size.0);
    let mut space = ReadBuf::new(buffer.space());
    if Pin::new(io).poll_read(cx, &mut space)?.is_pending() {
        *size = ReadSize::default();
        return Poll::Pending;
    }
    let (asked, got) = (space.capacity(), space.filled().len());
    *size = size.next(asked, got);
    if got > 0 {
        buffer.fill(got);
        *held = Held::Buffer(buffer);
    }
    Poll::Ready(Ok(got))
}

/// Writes once, all pieces together where `io` can.
pub fn poll_put(
    io: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    held: &mut Held,
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    let put = match held {
        Held::Chunks(chunks) if chunks.len() > 1 && io.is_write_vectored() => {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = held.slices(&mut slices);
            ready!(io.poll_write_vectored(cx, &slices[..count]))?
        }
        _ => ready!(io.poll_write(cx, held.first()))?,
    };
    if put == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    held.advance(put);
    Poll::Ready(Ok(put))
}
