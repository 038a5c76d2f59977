//! A visitor's first flight: read until it is known which name is asked for, within bounds, and
//! nothing of it is lost.
//!
//! 1. Nothing is allocated until the first byte arrives: a silent connection costs a socket and no
//!    more.
//! 2. The first bytes tell TLS from plain-text HTTP from noise (`scan::Opening`).
//! 3. TLS: records are walked until the ClientHello in them is complete (`scan::RecordScanner`; RFC
//!    8446, 4.1.2 and 5.1). Then exactly those records go to rustls, once, which checks the message
//!    and finds server name and ALPN (`routing_facts`).
//! 4. HTTP: the head is read to its end, so that `plain_http` can answer it.
//! 5. Anything else, and whatever rustls refuses, becomes a [`ReadError::Refused`] with the alert
//!    to send.
//!
//! No timer here: the caller puts one deadline around the whole. No name is logged, and none is
//! compared: that is routing.

use std::io::{self, Read};
use std::task::{Poll, ready};
use std::{future, pin};

use bytes::Bytes;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt};

use self::scan::{HeadScanner, Opening, RecordScanner, Scan};
pub use self::scan::{MAX_MESSAGE, MAX_WIRE, Malformed};
use crate::alert::Alert;

mod scan;

/// Bytes of the first allocation: holds the hello of any current browser.
const FIRST_CAPACITY: usize = 2 * 1024;

/// Most bytes read of an HTTP head, the limit of nginx and Apache for one header line. The answer
/// is a redirect or a 400.
const MAX_HTTP_HEAD: usize = 8 * 1024;

/// Most protocol names kept from the ALPN extension. Browsers send two and routing asks for one,
/// but 16 KiB of hello can hold 8,000 names of one byte, which would cost twenty times their size
/// to keep.
const MAX_ALPN_NAMES: usize = 16;

/// The visitor's ClientHello, as far as routing needs it, and every byte read so far.
#[derive(Debug)]
pub struct ClientHello {
    /// The host that the visitor asks for: lower-case, valid as a DNS name, a trailing dot kept.
    /// `None` if there was no server_name extension or it held an IP address, which RFC 6066, 3
    /// does not allow.
    pub server_name: Option<String>,
    /// The application protocols on offer, in the visitor's order; the first 16 of them.
    pub alpn: Vec<Vec<u8>>,
    /// All bytes read from the connection, what came behind the ClientHello (early data) included:
    /// who answers the visitor must be given these first.
    pub bytes: Bytes,
    /// How many of them are the records of the ClientHello.
    pub length: usize,
}

impl ClientHello {
    /// Whether nothing has been read behind it: then it may be sent to somebody else as well, and
    /// nothing is done twice.
    pub fn is_alone(&self) -> bool {
        self.length == self.bytes.len()
    }
}

/// What a visitor began to speak.
#[derive(Debug)]
pub enum FirstFlight {
    /// TLS, with a ClientHello that rustls accepts.
    Tls(ClientHello),
    /// Plain-text HTTP: what was read of it, with a complete head or with 8 KiB of an endless one.
    Http(Bytes),
}

/// Why there is no first flight.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The visitor's fault: it sent what no later byte can turn into a ClientHello. It is to be
    /// told `alert`.
    #[error("refused with alert {}", alert.description())]
    Refused {
        /// What the visitor is told.
        alert: Alert,
        /// What was wrong, for the log. Holds no bytes of the visitor's choice beyond numbers.
        #[source]
        why: Refusal,
    },
    /// The visitor closed before anything could be decided: a port scan, a health check, a changed
    /// mind.
    #[error("closed before the first message was complete")]
    Closed,
    /// The connection broke.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// What was wrong with a refused first flight.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first bytes are neither TLS nor HTTP.
    #[error("the first bytes are neither TLS nor HTTP")]
    UnknownProtocol,
    /// The records can not hold an acceptable ClientHello.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The ClientHello is complete and rustls finds fault with it.
    #[error(transparent)]
    Invalid(#[from] rustls::Error),
    /// Our scanner saw the end of a ClientHello where rustls did not: a bug in one of the two.
    #[error("no end of the ClientHello where one was seen")]
    Unfinished,
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::decode_error(malformed.into())
    }
}

impl ReadError {
    /// A refusal with the alert for whatever can not be parsed (RFC 8446, 6.2).
    fn decode_error(why: Refusal) -> Self {
        Self::Refused {
            alert: Alert::DECODE_ERROR,
            why,
        }
    }
}

/// Reads from `stream` until the visitor's first message is complete or can not become valid.
///
/// Reads at most 32 KiB, in steps that double from 2 KiB, and may read past the message: all is in
/// the result. Needs a deadline around it, for it waits as long as the visitor does. If the future
/// is dropped, what was read is lost.
///
/// # Errors
/// See [`ReadError`]: who is at fault, and what to tell the visitor.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<FirstFlight, ReadError> {
    let mut flight = Buffer::default();
    loop {
        flight.fill(stream).await?;
        match Opening::of(&flight.bytes) {
            Opening::Tls => return read_hello(stream, flight).await.map(FirstFlight::Tls),
            Opening::Http => return read_head(stream, flight).await.map(FirstFlight::Http),
            Opening::Undecided => {}
            Opening::Neither => return Err(ReadError::decode_error(Refusal::UnknownProtocol)),
        }
    }
}

/// Reads on until the ClientHello that begins in `flight` is complete, and has it judged.
async fn read_hello<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut flight: Buffer,
) -> Result<ClientHello, ReadError> {
    let mut scanner = RecordScanner::default();
    let end = loop {
        match scanner.advance(&flight.bytes) {
            Scan::Incomplete => flight.fill(stream).await?,
            Scan::Complete { end } => break end,
            Scan::Bad(malformed) => return Err(malformed.into()),
        }
    };
    let (server_name, alpn) = routing_facts(&flight.bytes[..end])?;
    Ok(ClientHello {
        server_name,
        alpn,
        bytes: flight.bytes.into(),
        length: end,
    })
}

/// Reads on until the HTTP head that begins in `flight` is complete or longer than we care for.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut flight: Buffer,
) -> Result<Bytes, ReadError> {
    let mut scanner = HeadScanner::default();
    while !scanner.advance(&flight.bytes) && flight.bytes.len() < MAX_HTTP_HEAD {
        flight.fill(stream).await?;
    }
    Ok(flight.bytes.into())
}

/// Server name and ALPN of the ClientHello in `records`, which must be whole records with one
/// complete ClientHello.
///
/// rustls parses and checks, so that the relay and the agent behind it, which uses rustls too,
/// never read one hello in two ways. The names it logs on the way are why its log target is capped
/// in the binary.
fn routing_facts(records: &[u8]) -> Result<(Option<String>, Vec<Vec<u8>>), ReadError> {
    let accepted = accept(records)?;
    let hello = accepted.client_hello();
    let server_name = hello.server_name().map(str::to_owned);
    let alpn = hello
        .alpn()
        .map(|names| names.take(MAX_ALPN_NAMES).map(<[u8]>::to_vec).collect());
    Ok((server_name, alpn.unwrap_or_default()))
}

/// Has rustls judge the `records`.
fn accept(mut records: &[u8]) -> Result<Accepted, ReadError> {
    let mut acceptor = Acceptor::default();
    // rustls takes 4 KiB at a time, and more than one record of them only after it was asked to
    // look at what it has.
    while !records.is_empty() {
        let read = acceptor
            .read_tls(&mut records.by_ref())
            .map_err(|_| ReadError::decode_error(Refusal::Unfinished))?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) if read == 0 => break,
            Ok(None) => {}
            Err((error, alert)) => {
                return Err(ReadError::Refused {
                    alert: alert_in(alert),
                    why: error.into(),
                });
            }
        }
    }
    Err(ReadError::decode_error(Refusal::Unfinished))
}

/// The alert that rustls wants sent; decode_error where it has none to send, which is so for
/// records it can not take apart.
fn alert_in(mut alert: AcceptedAlert) -> Alert {
    let mut record = Vec::new();
    match alert.write_all(&mut record) {
        Ok(()) => Alert::from_record(&record).unwrap_or(Alert::DECODE_ERROR),
        Err(_) => Alert::DECODE_ERROR,
    }
}

/// The bytes read so far. Empty means: without allocation.
#[derive(Debug, Default)]
struct Buffer {
    /// Every byte of the connection, from the first on.
    bytes: Vec<u8>,
}

impl Buffer {
    /// Appends what the visitor sent since, at least one byte. Can be cancelled without loss.
    async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), ReadError> {
        future::poll_fn(|cx| {
            self.make_room();
            let poll = pin::pin!(stream.read_buf(&mut self.bytes)).poll(cx);
            if self.bytes.is_empty() {
                // Thousands of connections may wait for their first byte; the allocation was for
                // this poll only.
                self.bytes = Vec::new();
            }
            Poll::Ready(match ready!(poll) {
                Ok(0) => Err(ReadError::Closed),
                Ok(_) => Ok(()),
                Err(error) => Err(ReadError::Io(error)),
            })
        })
        .await
    }

    /// Sees to it that at least one more byte can be read, and never that more than [`MAX_WIRE`]
    /// are held.
    ///
    /// The scanners give up before that many bytes are read, so there is always room to make.
    fn make_room(&mut self) {
        let capacity = self.bytes.capacity();
        if self.bytes.len() == capacity {
            let wanted = (2 * capacity).clamp(FIRST_CAPACITY, MAX_WIRE);
            self.bytes.reserve_exact(wanted.saturating_sub(capacity));
        }
    }
}

#[cfg(test)]
mod tests;
