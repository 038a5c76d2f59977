//! What refused visitors hear, and that they hear it.

use std::pin::Pin;
use std::task::{Context, Poll};

use first_flight::alert::Alert;
use tokio::io::{AsyncReadExt, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Longer than anything here takes; the clock of these tests stands still unless all wait.
const LINGER: Duration = Duration::from_secs(2);

#[tokio::test(start_paused = true)]
async fn the_visitor_reads_the_last_words_and_the_end_before_it_closes_itself() {
    let (mut visitor, relay) = duplex(1024);
    let closing = send_and_close(relay, b"no", LINGER);
    let listening = async {
        let mut heard = Vec::new();
        visitor
            .read_to_end(&mut heard)
            .await
            .expect("an orderly end");
        visitor
            .write_all(b"still talking")
            .await
            .expect("the relay still drains");
        drop(visitor);
        heard
    };
    let start = tokio::time::Instant::now();
    let ((), heard) = tokio::join!(closing, listening);
    assert_eq!(heard, b"no");
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "nobody waited for the linger time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_stays_is_left_after_the_linger_time() {
    let (mut visitor, relay) = duplex(1024);
    let start = tokio::time::Instant::now();
    send_and_close(relay, b"no", LINGER).await;
    assert_eq!(start.elapsed(), LINGER);
    visitor
        .write_all(b"?")
        .await
        .expect_err("the connection is gone");
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_reads_nothing_is_left_after_the_linger_time_too() {
    let (_visitor, relay) = duplex(1);
    let start = tokio::time::Instant::now();
    send_and_close(relay, b"nobody reads this", LINGER).await;
    assert_eq!(start.elapsed(), LINGER);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_is_gone_is_no_error() {
    let (visitor, relay) = duplex(1024);
    drop(visitor);
    let start = tokio::time::Instant::now();
    send_and_close(relay, b"no", LINGER).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn at_most_64_kib_are_drained() {
    let mut flood = Flood::default();
    let start = tokio::time::Instant::now();
    send_and_close(&mut flood, b"no", LINGER).await;
    assert_eq!(flood.heard, b"no");
    assert_eq!(flood.spoken, DRAIN_LIMIT);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// The one thing that no pipe shows: a TCP socket closed with unread data sends a reset, and that
/// would take the alert along.
#[tokio::test]
async fn an_alert_arrives_although_the_visitor_sent_more_than_was_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let mut visitor = TcpStream::connect(address).await.expect("a listener");
    let (relay, _) = listener.accept().await.expect("a visitor");
    visitor
        .write_all(&[b'!'; 20_000])
        .await
        .expect("room in the buffers of the kernel");
    relay.readable().await.expect("unread data");

    let alert = Alert::DECODE_ERROR.to_bytes();
    let listening = async {
        let mut heard = Vec::new();
        visitor
            .read_to_end(&mut heard)
            .await
            .expect("an end without reset");
        drop(visitor);
        heard
    };
    let ((), heard) = tokio::join!(send_and_close(relay, &alert, LINGER), listening);
    assert_eq!(heard, alert);
}

/// A visitor that has always more to say.
#[derive(Default)]
struct Flood {
    /// What it was told.
    heard: Vec<u8>,
    /// Bytes that were read from it.
    spoken: u64,
    /// Whether it was told that no more will come.
    ended: bool,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(
            self.ended,
            "the end must be told before the rest is drained"
        );
        let length = buffer.remaining();
        buffer.put_slice(&vec![b'!'; length]);
        self.spoken += u64::try_from(length).expect("a buffer below 2^64 bytes");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}
