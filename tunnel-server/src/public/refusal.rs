//! The end of a refused connection, such that the last words arrive.
//!
//! Which alert answers which mistake is decided where the mistake is seen: `first_flight` for bytes
//! that are no ClientHello, the router for names that are not ours.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that a refused visitor may still send before the connection is dropped under it. One full
/// TCP receive window of an ordinary client: whoever sends more does not read our answer either.
const DRAIN_LIMIT: u64 = 64 * 1024;

/// Bytes read at a time while draining. They are thrown away, so the buffer only has to be small
/// beside the connection itself.
const DRAIN_CHUNK: usize = 1024;

/// Says `last_words` and ends the connection.
///
/// The write half is shut down at once, so the visitor sees the end without delay. What it still
/// sends is read and thrown away until it closes too: a socket that is closed with unread data in
/// its queue sends a reset, and a reset makes the visitor's kernel discard the last words before
/// anybody read them (RFC 1122, 4.2.2.13; RFC 9112, 9.6).
///
/// The whole takes at most `linger` and reads at most 64 KiB. A visitor that is gone or does not
/// listen is no error: there is nobody left to tell. If the future is dropped early, the connection
/// ends there and the last words may be lost.
pub(crate) async fn send_and_close<S>(mut stream: S, last_words: &[u8], linger: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Both the time limit and a failed read or write end in the same place: the stream is dropped.
    let _ = tokio::time::timeout(linger, say_and_drain(&mut stream, last_words)).await;
}

/// The steps of [`send_and_close`] without the time limit.
async fn say_and_drain<S>(stream: &mut S, last_words: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(last_words).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(DRAIN_LIMIT);
    let mut chunk = [0; DRAIN_CHUNK];
    while rest.read(&mut chunk).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
