//! What TLS writes to a visitor, gathered: a flight goes when he is waited for.
//!
//! The tickets of TLS 1.3 come last, when nobody waits for him any more. They have time until there is
//! something else to send: so they cost no packet, no system call and nobody's turn of their own.
//!
//! ```text
//!   visitor   ── hello ──▶            ── finished ──▶             ◀── tickets + the first answer ──
//!             ◀── our flight ──                       greeted
//! ```

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_common::splice::duplex::Duplex;
use tunnel_common::splice::end::Halves;
use tunnel_common::wire::code::Code;

/// A visitor's stream under his TLS.
#[derive(Debug)]
pub(crate) struct Flights<D> {
    stream: D,
    /// What goes before anything else.
    kept: Vec<u8>,
    /// The handshake is over.
    is_greeted: bool,
}

impl<D> Flights<D> {
    /// A handshake begins.
    pub(crate) fn new(stream: D) -> Self {
        Self {
            stream,
            kept: vec![],
            is_greeted: false,
        }
    }

    /// The handshake is over: what is kept goes with whatever is written or flushed next.
    pub(crate) fn greeted(&mut self) {
        self.is_greeted = true;
    }

    /// The stream itself. What is kept is lost.
    pub(crate) fn into_inner(self) -> D {
        self.stream
    }
}

impl<D: AsyncWrite + Unpin> Flights<D> {
    /// Sends what is kept, and gives the stream itself: there is nothing more to say.
    pub(crate) async fn said(mut self) -> D {
        // A visitor who is gone needs to hear nothing.
        let _ = std::future::poll_fn(|cx| self.poll_send_kept(cx)).await;
        self.stream
    }

    fn poll_send_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.drain(..sent);
        }
        self.kept = vec![];
        Poll::Ready(Ok(()))
    }
}

impl<D: AsyncRead + AsyncWrite + Unpin> AsyncRead for Flights<D> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && !self.is_greeted {
            // Woken when there is room, or when he has said more.
            ready!(self.poll_send_kept(cx))?;
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            return Poll::Pending;
        }
        read
    }
}

impl<D: AsyncWrite + Unpin> AsyncWrite for Flights<D> {
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
        if self.is_greeted {
            ready!(self.poll_send_kept(cx))?;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let before = self.kept.len();
        for slice in slices {
            self.kept.extend_from_slice(slice);
        }
        Poll::Ready(Ok(self.kept.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_greeted {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send_kept(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_kept(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<D: Duplex> Duplex for Flights<D> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.stream.check(cx)
    }

    fn part(&mut self, halves: Halves) {
        self.stream.part(halves);
    }

    fn break_off(&mut self, code: Code) {
        self.stream.break_off(code);
    }

    fn is_sound(&self) -> bool {
        self.stream.is_sound()
    }

    fn pinned(&self) -> u64 {
        self.stream.pinned()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Less than what is written in each test.
    const NARROW: usize = 4;

    /// What has come by now.
    fn arrived(visitor: &mut DuplexStream) -> Vec<u8> {
        let mut all = vec![0; 1024];
        let read = visitor.read(&mut all).now_or_never();
        all.truncate(read.map_or(0, |read| read.expect("is open")));
        all
    }

    #[tokio::test]
    async fn a_flight_goes_as_one_when_the_visitor_is_waited_for() {
        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut flights = Flights::new(ours);
        flights.write_all(b"hello, ").await.expect("is kept");
        flights.flush().await.expect("is kept");
        flights.write_all(b"visitor").await.expect("is kept");
        assert_eq!(arrived(&mut visitor), b"");
        assert!(flights.read_u8().now_or_never().is_none(), "he is silent");
        assert_eq!(arrived(&mut visitor), b"hello, visitor");
        visitor.write_all(b"!").await.expect("is open");
        assert_eq!(flights.read_u8().await.expect("is open"), b'!');
    }

    #[tokio::test]
    async fn a_flight_that_finds_no_room_goes_on_when_there_is() {
        let (mut visitor, ours) = tokio::io::duplex(NARROW);
        let mut flights = Flights::new(ours);
        flights.write_all(b"a long hello").await.expect("is kept");
        let visiting = async {
            let mut all = [0; 12];
            visitor.read_exact(&mut all).await.expect("all comes");
            visitor.write_all(b"!").await.expect("is open");
            all
        };
        let (answer, all) = tokio::join!(flights.read_u8(), visiting);
        assert_eq!((answer.expect("comes"), &all), (b'!', b"a long hello"));
    }

    #[tokio::test]
    async fn the_last_flight_goes_before_the_first_answer() {
        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut flights = Flights::new(ours);
        flights.write_all(b"tickets, ").await.expect("is kept");
        flights.greeted();
        assert!(flights.read_u8().now_or_never().is_none(), "he is silent");
        assert_eq!(arrived(&mut visitor), b"");
        flights.write_all(b"answer").await.expect("is open");
        assert_eq!(arrived(&mut visitor), b"tickets, answer");
    }

    #[tokio::test]
    async fn what_is_kept_goes_by_a_flush_before_an_end_and_when_all_is_said() {
        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut flights = Flights::new(ours);
        flights.write_all(b"finished").await.expect("is kept");
        flights.greeted();
        flights.flush().await.expect("is open");
        assert_eq!(arrived(&mut visitor), b"finished");

        let (mut visitor, ours) = tokio::io::duplex(NARROW);
        let mut flights = Flights::new(ours);
        flights.write_all(b"bye, bye").await.expect("is kept");
        let mut all = String::new();
        let (ended, read) = tokio::join!(flights.shutdown(), visitor.read_to_string(&mut all));
        assert!(ended.is_ok() && read.is_ok());
        assert_eq!(all, "bye, bye");

        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut flights = Flights::new(ours);
        flights.write_all(b"alert").await.expect("is kept");
        drop(flights.said().await);
        assert_eq!(arrived(&mut visitor), b"alert");
    }
}
