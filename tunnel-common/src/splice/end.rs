//! What a splice needs of the two streams between which it pumps.

use std::io;
use std::task::{Context, Poll};

use super::buffer::{BufferPool, Held};
use crate::wire::code::Code;

/// One side of a splice: bytes come out of it and go into it.
///
/// An end that is dropped before both its directions ended is *aborted*: its peer sees a reset,
/// never a clean end of a transfer that was cut short.
pub trait End {
    /// Takes what has arrived into `held`, which is empty; `Ok(0)` is the clean end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>>;

    /// Puts at least one byte of `held`, which is not empty.
    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>>;

    /// Sends what an end may still keep back after [`poll_put`](Self::poll_put).
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the stream that goes into this end, cleanly. Bytes still come out of it.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Looks whether the end has broken while nobody reads from it, which reading would have told.
    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()>;

    /// Ends both directions at once, so that the peer sees a reset and, where the transport can
    /// say it, `code`. What was put may be lost, unless it had been finished.
    fn abort(&mut self, code: Code);

    /// Whether a clean end of what comes out can be believed even after a write has failed. A
    /// socket whose error was told to a write reads as if it had ended.
    fn ends_soundly(&self) -> bool {
        false
    }

    /// Bytes of our memory that the peer can fill while what comes out of this end is not read
    /// on: a tunnel's stream window, 0 where the kernel bounds it.
    fn pinned_bytes(&self) -> u64 {
        0
    }

    /// Whether the peer has said, without complaint, that it wants no more bytes: what is put is
    /// then dropped.
    fn is_discarding(&self) -> bool {
        false
    }
}

/// An end of whatever kind.
pub type AnyEnd = Box<dyn End + Send>;

impl<E: End + ?Sized> End for Box<E> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        held: &mut Held,
        pool: &BufferPool,
    ) -> Poll<io::Result<usize>> {
        (**self).poll_take(cx, held, pool)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, held: &mut Held) -> Poll<io::Result<usize>> {
        (**self).poll_put(cx, held)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_finish(cx)
    }

    fn probe(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        (**self).probe(cx)
    }

    fn abort(&mut self, code: Code) {
        (**self).abort(code);
    }

    fn ends_soundly(&self) -> bool {
        (**self).ends_soundly()
    }

    fn pinned_bytes(&self) -> u64 {
        (**self).pinned_bytes()
    }

    fn is_discarding(&self) -> bool {
        (**self).is_discarding()
    }
}

/// Which directions of an end are still open: what decides whether dropping it is an abort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Halves {
    /// Nothing has ended yet, or the end was aborted.
    #[default]
    Both,
    /// No more comes out; bytes may still go in.
    OnlyIn,
    /// No more goes in; bytes may still come out.
    OnlyOut,
    /// Both ended cleanly.
    Neither,
}

impl Halves {
    /// What comes out has ended cleanly.
    pub fn out_ended(&mut self) {
        *self = match self {
            Self::Both | Self::OnlyIn => Self::OnlyIn,
            Self::OnlyOut | Self::Neither => Self::Neither,
        };
    }

    /// What goes in has ended cleanly.
    pub fn in_ended(&mut self) {
        *self = match self {
            Self::Both | Self::OnlyOut => Self::OnlyOut,
            Self::OnlyIn | Self::Neither => Self::Neither,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_end_in_either_order() {
        let mut halves = Halves::default();
        halves.out_ended();
        halves.out_ended();
        assert_eq!(halves, Halves::OnlyIn);
        halves.in_ended();
        assert_eq!(halves, Halves::Neither);

        let mut halves = Halves::default();
        halves.in_ended();
        assert_eq!(halves, Halves::OnlyOut);
        halves.out_ended();
        assert_eq!(halves, Halves::Neither);
    }
}
