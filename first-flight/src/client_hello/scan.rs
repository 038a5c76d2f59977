//! Where a visitor's first message ends: the arithmetic under [`client_hello`](super), without I/O.
//!
//! * [`Opening::of`] tells from the first bytes whether TLS or plain-text HTTP begins here.
//! * [`RecordScanner`] walks TLS records until the handshake message in them, a ClientHello, is
//!   complete.
//! * [`HeadScanner`] looks for the empty line that ends an HTTP head.
//!
//! All of them are fed the *whole* buffer again after every read, remember how far they came, and
//! so cost O(n) for any fragmentation. "Not yet" and "no" are different answers: more bytes can
//! only ever turn `Incomplete` into something else.
//!
//! What the message means is not looked at; that is left to rustls, once, when it is complete.

/// Most bytes of a ClientHello, its 4 header bytes included. Chrome with post-quantum keys sends
/// 1.8 KB and a resumption ticket adds a few hundred; nginx and caddy-l4 stop at 16 KiB too. TLS
/// itself would allow 16 MiB (RFC 8446, 4).
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Most bytes kept of a connection before it is routed: [`MAX_MESSAGE`] with as much again for
/// record headers. A hello of 1.8 KB may thus come in records of one byte each (RFC 8446, 5.1
/// allows any fragmentation), one of 16 KiB in 3,000 records.
pub const MAX_WIRE: usize = 32 * 1024;

/// Content type of a record that carries handshake messages (RFC 8446, 5.1).
const CONTENT_HANDSHAKE: u8 = 22;

/// Major number of the record version. TLS 1.0 to 1.3 all write 3; the minor number means nothing
/// any more (RFC 8446, 5.1).
const VERSION_MAJOR: u8 = 3;

/// Bytes of a record header: content type 1, version 2, length 2 (RFC 8446, 5.1).
const RECORD_HEADER_LEN: usize = 5;

/// Most bytes of payload in one plain-text record, 2^14 (RFC 8446, 5.1).
const MAX_RECORD_PAYLOAD: usize = 16 * 1024;

/// Bytes of a handshake message's header: type 1, length 3 (RFC 8446, 4).
const MESSAGE_HEADER_LEN: usize = 4;

/// Handshake type of a ClientHello (RFC 8446, 4).
const TYPE_CLIENT_HELLO: u8 = 1;

/// The methods of RFC 9110 and PATCH (RFC 5789), with the space that ends them, and `PRI` of the
/// HTTP/2 preface (RFC 9113, 3.4).
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
];

/// What the first bytes of a connection announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A TLS handshake record.
    Tls,
    /// A request in plain-text HTTP/1.x, or the preface of HTTP/2.
    Http,
    /// A proper prefix of an HTTP method: the next bytes will tell.
    Undecided,
    /// Neither: SSH, SSLv2, an alert, noise.
    Neither,
}

impl Opening {
    /// Judges the `bytes` read so far.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.first() == Some(&CONTENT_HANDSHAKE) {
            Self::Tls
        } else if HTTP_METHODS.iter().any(|method| bytes.starts_with(method)) {
            Self::Http
        } else if HTTP_METHODS.iter().any(|method| method.starts_with(bytes)) {
            Self::Undecided
        } else {
            Self::Neither
        }
    }
}

/// Why bytes that began like a TLS handshake can not become a ClientHello that we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A record that is not the continuation of the handshake, or not one at all.
    #[error(
        "a record of type {content_type} and major version {major} where a handshake record belongs"
    )]
    WrongRecord {
        /// Content type as sent.
        content_type: u8,
        /// Major version as sent.
        major: u8,
    },
    /// A handshake record without payload, which RFC 8446, 5.1 forbids.
    #[error("a handshake record of length zero")]
    EmptyRecord,
    /// A record over 2^14 bytes.
    #[error("a record of {0} bytes")]
    RecordTooLong(usize),
    /// Another handshake message than a ClientHello came first.
    #[error("a handshake message of type {0} before any ClientHello")]
    NotClientHello(u8),
    /// The message says that it is longer than [`MAX_MESSAGE`].
    #[error("a ClientHello of {0} bytes")]
    MessageTooLong(usize),
    /// Cut into records as it is, the message will not end within [`MAX_WIRE`].
    #[error("a ClientHello in too many records")]
    WireTooLong,
}

/// What a scanner knows after the bytes it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// All is well so far, and something is still missing.
    Incomplete,
    /// The first message is here.
    Complete {
        /// Where the record ends in which the message ends, from the start of the buffer, in bytes.
        end: usize,
    },
    /// No further byte can mend this.
    Bad(Malformed),
}

/// Walks the TLS records of a first flight up to the end of its first handshake message.
///
/// ```text
/// record header ──► payload ──► record used up? ──► message complete? ──► Complete
///       ▲                                                 │ no
///       └─────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Default)]
pub(super) struct RecordScanner {
    /// Bytes of the buffer that are dealt with.
    position: usize,
    /// Bytes of the current record's payload that are not yet dealt with; 0 between two records.
    record_left: usize,
    /// The message's header, as far as it is known.
    header: [u8; MESSAGE_HEADER_LEN],
    /// Bytes of the message seen so far, its header included.
    message_seen: usize,
}

impl RecordScanner {
    /// Goes on where the last call stopped. `wire` is all that was read since the connection began.
    pub(super) fn advance(&mut self, wire: &[u8]) -> Scan {
        loop {
            let step = if self.record_left > 0 {
                self.take_payload(wire)
            } else if self.message_left() == Some(0) {
                return Scan::Complete { end: self.position };
            } else {
                self.take_record_header(wire)
            };
            match step {
                Ok(true) => {}
                Ok(false) => return Scan::Incomplete,
                Err(malformed) => return Scan::Bad(malformed),
            }
        }
    }

    /// Reads the record header at the current position; `Ok(false)` if it is not whole yet.
    ///
    /// What is there of it is judged at once: a visitor that sends one wrong byte and waits gets
    /// its answer now.
    fn take_record_header(&mut self, wire: &[u8]) -> Result<bool, Malformed> {
        let header = wire.get(self.position..).unwrap_or_default();
        let content_type = header.first().copied().unwrap_or(CONTENT_HANDSHAKE);
        let major = header.get(1).copied().unwrap_or(VERSION_MAJOR);
        if content_type != CONTENT_HANDSHAKE || major != VERSION_MAJOR {
            return Err(Malformed::WrongRecord {
                content_type,
                major,
            });
        }
        let &[_, _, _, high, low, ..] = header else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match length {
            0 => return Err(Malformed::EmptyRecord),
            1..=MAX_RECORD_PAYLOAD => {}
            _ => return Err(Malformed::RecordTooLong(length)),
        }
        self.position += RECORD_HEADER_LEN;
        self.record_left = length;
        self.fits_wire()?;
        Ok(true)
    }

    /// Takes what is there of the current record's payload; `Ok(false)` if that is nothing.
    fn take_payload(&mut self, wire: &[u8]) -> Result<bool, Malformed> {
        let rest = wire.get(self.position..).unwrap_or_default();
        let payload = &rest[..rest.len().min(self.record_left)];
        if payload.is_empty() {
            return Ok(false);
        }
        // Before the header is whole, only it may be counted: until then the message has no known
        // end.
        let taken = match self.message_left() {
            Some(_) => payload.len(),
            None => self.take_message_header(payload)?,
        };
        self.position += taken;
        self.record_left -= taken;
        self.message_seen += taken;
        self.fits_wire()?;
        Ok(true)
    }

    /// Collects the message's header from `payload` and judges it; returns how many bytes belonged
    /// to it.
    fn take_message_header(&mut self, payload: &[u8]) -> Result<usize, Malformed> {
        let missing = &mut self.header[self.message_seen..];
        let taken = missing.len().min(payload.len());
        missing[..taken].copy_from_slice(&payload[..taken]);
        let [message_type, length @ ..] = self.header;
        if message_type != TYPE_CLIENT_HELLO {
            return Err(Malformed::NotClientHello(message_type));
        }
        // Bytes that are still missing are zero, so this can only grow: a length that is too long
        // stays too long.
        let total = total_len(length);
        if total > MAX_MESSAGE {
            return Err(Malformed::MessageTooLong(total));
        }
        Ok(taken)
    }

    /// Bytes of the message that are missing; `None` while its header is.
    ///
    /// Handshake bytes behind the message in its last record count as nothing here: rustls will
    /// refuse them.
    fn message_left(&self) -> Option<usize> {
        let [_, length @ ..] = self.header;
        (self.message_seen >= MESSAGE_HEADER_LEN)
            .then(|| total_len(length).saturating_sub(self.message_seen))
    }

    /// Refuses a message that can not end within [`MAX_WIRE`], even if all the rest of it came in
    /// records as long as allowed.
    fn fits_wire(&self) -> Result<(), Malformed> {
        let beyond = self
            .message_left()
            .unwrap_or_default()
            .saturating_sub(self.record_left);
        let records = beyond.div_ceil(MAX_RECORD_PAYLOAD);
        let end = self.position + self.record_left + beyond + records * RECORD_HEADER_LEN;
        if end > MAX_WIRE {
            Err(Malformed::WireTooLong)
        } else {
            Ok(())
        }
    }
}

/// Bytes of a handshake message with its header, from the length field in that header.
fn total_len([high, middle, low]: [u8; 3]) -> usize {
    let body = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    MESSAGE_HEADER_LEN + body
}

/// Looks for the empty line that ends an HTTP head. Both `\r\n` and a bare `\n` end a line (RFC
/// 9112, 2.2).
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Bytes of the buffer that are dealt with.
    position: usize,
    /// Whether nothing but a `\r` stands between the last `\n` and the position; not so before the
    /// first line.
    at_line_start: bool,
}

impl HeadScanner {
    /// Goes on where the last call stopped; whether the end of the head has been seen. `bytes` is
    /// all that was read so far.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> bool {
        for &byte in bytes.get(self.position..).unwrap_or_default() {
            match byte {
                b'\n' if self.at_line_start => return true,
                b'\n' => self.at_line_start = true,
                b'\r' => {}
                _ => self.at_line_start = false,
            }
            self.position += 1;
        }
        false
    }
}
