//! An input as a connection on which it arrives in pieces, and then nothing.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, ReadBuf};

/// The most lengths that an input may begin with.
const MAX_LENGTHS: u8 = 7;

/// The lengths of the pieces, and the bytes that are sent.
///
/// The first byte of the input, modulo 8, is how many bytes of lengths follow it. The rest is sent.
pub fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return (&[], &[]);
    };
    let lengths = usize::from(first % (MAX_LENGTHS + 1));
    rest.split_at(lengths.min(rest.len()))
}

/// The connection. Between two pieces it has nothing to read.
#[derive(Debug)]
pub struct Reads<'a> {
    rest: &'a [u8],
    lengths: &'a [u8],
    pieces: usize,
    left_of_piece: usize,
    given: usize,
    most_held: usize,
    most_room: usize,
}

impl<'a> Reads<'a> {
    /// Sends `bytes` in pieces of `lengths`, over and over, 0 standing for 256; without any, all at
    /// once.
    pub fn new(bytes: &'a [u8], lengths: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            lengths,
            pieces: 0,
            left_of_piece: 0,
            given: 0,
            most_held: 0,
            most_room: 0,
        }
    }

    /// Bytes that were read.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The most that a reader could have held that kept all it read: that, and the room it made.
    pub fn most_held(&self) -> usize {
        self.most_held
    }

    /// The most bytes that a reader made room for at one time.
    pub fn most_room(&self) -> usize {
        self.most_room
    }

    fn next_piece(&mut self) -> usize {
        let length = match self.lengths.get(self.pieces % self.lengths.len().max(1)) {
            None => self.rest.len(),
            Some(0) => 256,
            Some(length) => usize::from(*length),
        };
        self.pieces += 1;
        length
    }
}

impl AsyncRead for Reads<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        self.most_room = self.most_room.max(room);
        self.most_held = self.most_held.max(self.given + room);
        if self.rest.is_empty() {
            return Poll::Pending;
        }
        if self.left_of_piece == 0 {
            self.left_of_piece = self.next_piece();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let bytes = self.left_of_piece.min(buffer.remaining());
        let (now, later) = self.rest.split_at(bytes.min(self.rest.len()));
        buffer.put_slice(now);
        self.rest = later;
        self.given += now.len();
        self.left_of_piece -= bytes;
        Poll::Ready(Ok(()))
    }
}

/// Whether somebody was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future that reads; `None` if it waits for what does not come.
pub fn run<F: Future>(future: F) -> Option<F::Output> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return Some(output),
            Poll::Pending if bell.0.swap(false, Ordering::Relaxed) => {}
            Poll::Pending => return None,
        }
    }
}
