//! What a refused visitor is told, and how the connection then ends.
//!
//! 1. [`Alert`]: the one TLS alert a visitor gets instead of an answer. A fatal alert is a record
//!    of seven bytes, so the relay writes it by hand: no handshake has begun and there is no TLS
//!    connection that could do it (RFC 8446, 6).
//! 2. [`send_and_close`]: the end of a refused connection, such that the last words arrive.
//!
//! Which alert answers which mistake is decided where the mistake is seen: `client_hello` for bytes
//! that are no ClientHello, the router for names that are not ours.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a fatal alert on the wire: a record header of 5 and an alert of 2 (RFC 8446, 5.1 and
/// 6).
const ALERT_RECORD_LEN: usize = 7;

/// What stands before the description in every fatal alert: content type alert, legacy version
/// 0x0303, length 2, level fatal.
const ALERT_RECORD_START: [u8; ALERT_RECORD_LEN - 1] = [21, 3, 3, 0, 2, 2];

/// Bytes that a refused visitor may still send before the connection is dropped under it. One full
/// TCP receive window of an ordinary client: whoever sends more does not read our answer either.
const DRAIN_LIMIT: u64 = 64 * 1024;

/// Bytes read at a time while draining. They are thrown away, so the buffer only has to be small
/// beside the connection itself.
const DRAIN_CHUNK: usize = 1024;

/// A fatal TLS alert, known by its description (RFC 8446, 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert(u8);

impl Alert {
    /// The bytes are no ClientHello, or one with a length that lies.
    pub(crate) const DECODE_ERROR: Self = Self(50);
    /// The fault is ours: no tunnel took the visit although the name is known and online.
    pub(crate) const INTERNAL_ERROR: Self = Self(80);
    /// The ClientHello names no host, so there is nothing to route by (RFC 8446, 9.2).
    pub(crate) const MISSING_EXTENSION: Self = Self(109);
    /// The name is not one of ours, or nobody serves it now; which of the two is nobody's business
    /// (RFC 6066, 3).
    pub(crate) const UNRECOGNIZED_NAME: Self = Self(112);

    /// Reads back an alert that a TLS library wrote; `None` if `record` is anything but one fatal
    /// alert in plain text.
    pub(crate) fn from_record(record: &[u8]) -> Option<Self> {
        match record {
            [21, 3, _, 0, 2, 2, description] => Some(Self(*description)),
            _ => None,
        }
    }

    /// The number that stands for this alert on the wire and in the registry of IANA.
    pub(crate) fn description(self) -> u8 {
        self.0
    }

    /// The whole record as it goes over the wire.
    pub(crate) fn to_bytes(self) -> [u8; ALERT_RECORD_LEN] {
        let mut record = [self.0; ALERT_RECORD_LEN];
        record[..ALERT_RECORD_START.len()].copy_from_slice(&ALERT_RECORD_START);
        record
    }
}

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
