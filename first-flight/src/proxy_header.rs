//! The header by which a proxy in front of the relay says who the visitor is: the PROXY protocol,
//! text (version 1) and binary (version 2). Spec:
//! <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>.
//!
//! ```text
//! PROXY TCP4 203.0.113.7 192.0.2.1 50000 443␍␊         at most 107 bytes
//! ␍␊␍␊␀␍␊QUIT␊ | version, command | family | length | addresses | fields that are skipped
//! ```
//!
//! It is read in steps that never reach beyond its end, so what follows is untouched: the visitor's
//! first flight. `Step::of` decides, [`read`] only fetches. No timer and no allocation here.
//!
//! Who may send one is the caller's business: the header proves nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a header of version 1, its line end included (spec, 2.1).
pub const MAX_V1_BYTES: usize = 107;
/// Most bytes of a header of version 2. Addresses need 52 at most; the rest is for fields that we
/// skip, of which a client certificate's names are the longest in use. The format allows 64 KiB.
pub const MAX_V2_BYTES: usize = 4 * 1024;

/// How a header of version 1 begins.
const V1_START: &[u8] = b"PROXY ";
/// The shortest header of all: `PROXY UNKNOWN` and a line end. Who sends less has sent no header.
const MIN_BYTES: usize = 15;
/// The line end of version 1.
const LINE_END: &[u8] = b"\r\n";
/// How a header of version 2 begins.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// Who the visitor is, and which address he came to. An IPv4-mapped address is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The visitor's own.
    pub visitor: SocketAddr,
    /// The one that he connected to.
    pub public: SocketAddr,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The connection began with something else.
    #[error("the first bytes are no PROXY protocol header")]
    NoHeader,
    /// A header that breaks the format.
    #[error("a PROXY protocol header that can not be read: {0}")]
    Malformed(&'static str),
    /// More than [`MAX_V1_BYTES`] or [`MAX_V2_BYTES`].
    #[error("a PROXY protocol header that is too long")]
    TooLong,
    /// The proxy closed before the header was complete: a port scan, or a health check.
    #[error("closed before the PROXY protocol header was complete")]
    Closed,
    /// The connection broke.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Reads a header, however it is cut, and not a byte beyond it.
///
/// `None` means that the proxy speaks for itself (`LOCAL`, its health check) or can not tell
/// (`UNKNOWN`, a family that is not TCP over IP): the connection's own addresses count. Needs a
/// deadline around it. If the future is dropped, an unknown part of the header is consumed.
///
/// # Errors
/// See [`HeaderError`]. What was consumed then is lost.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<Addresses>, HeaderError> {
    let mut buffer = [0; MAX_V1_BYTES];
    let mut filled = 0;
    loop {
        match Step::of(&buffer[..filled])? {
            Step::More(bytes) => {
                filled += fetch(stream, &mut buffer[filled..filled + bytes]).await?;
            }
            Step::Whole { addresses, rest } => {
                skip(stream, rest, &mut buffer).await?;
                return Ok(addresses);
            }
        }
    }
}

/// Reads and forgets exactly so many bytes.
async fn skip<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut bytes: usize,
    buffer: &mut [u8],
) -> Result<(), HeaderError> {
    while bytes > 0 {
        let piece = bytes.min(buffer.len());
        bytes -= fetch(stream, &mut buffer[..piece]).await?;
    }
    Ok(())
}

/// At least one byte and at most what `buffer` holds.
async fn fetch<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut [u8],
) -> Result<usize, HeaderError> {
    match stream.read(buffer).await {
        Ok(0) => Err(HeaderError::Closed),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(HeaderError::Io(error)),
    }
}

/// What is known after some bytes of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// All is well so far, and at least so many bytes of the header are missing.
    More(usize),
    /// All that counts is here.
    Whole {
        /// What it says; `None` if nothing.
        addresses: Option<Addresses>,
        /// Bytes that belong to the header and are still to come.
        rest: usize,
    },
}

impl Step {
    /// Judges all `bytes` read so far, which never reach beyond the header.
    fn of(bytes: &[u8]) -> Result<Self, HeaderError> {
        if begins(bytes, V2_SIGNATURE) && !bytes.is_empty() {
            Self::of_v2(bytes)
        } else if begins(bytes, V1_START) {
            Self::of_v1(bytes)
        } else {
            Err(HeaderError::NoHeader)
        }
    }

    fn of_v1(bytes: &[u8]) -> Result<Self, HeaderError> {
        let line_end = bytes.windows(LINE_END.len()).position(|w| w == LINE_END);
        if let Some(end) = line_end {
            // A line shorter than the shortest header ends before what was read, and is malformed.
            let fields = bytes[..end].strip_prefix(V1_START).unwrap_or_default();
            let (addresses, rest) = (v1_addresses(fields)?, 0);
            return Ok(Self::Whole { addresses, rest });
        }
        let end = if bytes.ends_with(&LINE_END[..1]) {
            1
        } else {
            LINE_END.len()
        };
        let missing = end.max(MIN_BYTES.saturating_sub(bytes.len()));
        if bytes.len() + missing > MAX_V1_BYTES {
            return Err(HeaderError::TooLong);
        }
        Ok(Self::More(missing))
    }

    fn of_v2(bytes: &[u8]) -> Result<Self, HeaderError> {
        let &[.., version_and_command, family, high, low] =
            bytes.get(..V2_FIXED_BYTES).unwrap_or_default()
        else {
            // The shortest header of version 1 is shorter: one byte may be missing yet.
            return Ok(Self::More(MIN_BYTES.max(bytes.len() + 1) - bytes.len()));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if V2_FIXED_BYTES + length > MAX_V2_BYTES {
            return Err(HeaderError::TooLong);
        }
        let needed = match version_and_command {
            // LOCAL: "the family must be ignored" (spec, 2.2).
            0x20 => 0,
            0x21 => address_bytes(family)?,
            _ => return Err(HeaderError::Malformed("an unknown version or command")),
        };
        if length < needed {
            return Err(HeaderError::Malformed("no room for the addresses"));
        }
        let whole = V2_FIXED_BYTES + needed;
        if bytes.len() < whole {
            return Ok(Self::More(whole - bytes.len()));
        }
        Ok(Self::Whole {
            addresses: v2_addresses(&bytes[V2_FIXED_BYTES..whole]),
            rest: length - needed,
        })
    }
}

/// Whether `bytes` are the beginning of what starts with `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.starts_with(start) || start.starts_with(bytes)
}

/// The fields of version 1, from the family on and without the line end.
fn v1_addresses(line: &[u8]) -> Result<Option<Addresses>, HeaderError> {
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        // "The receiver must ignore anything presented before the CRLF" (spec, 2.1).
        return Ok(None);
    }
    let mut fields = line.split(|byte| *byte == b' ').map(str::from_utf8);
    let mut field = || fields.next().and_then(Result::ok);
    let family = field().ok_or(HeaderError::Malformed("no family"))?;
    let (source, destination) = (field(), field());
    let (source_port, destination_port) = (field(), field());
    if fields.next().is_some() {
        return Err(HeaderError::Malformed("a field too many"));
    }
    let address = |ip: Option<&str>, port: Option<&str>| {
        let ip = match family {
            "TCP4" => ip?.parse::<Ipv4Addr>().ok()?.into(),
            "TCP6" => ip?.parse::<Ipv6Addr>().ok()?.into(),
            _ => return None,
        };
        Some(socket_address(ip, port_number(port?)?))
    };
    let addresses = Addresses {
        visitor: address(source, source_port).ok_or(HeaderError::Malformed("the source"))?,
        public: address(destination, destination_port)
            .ok_or(HeaderError::Malformed("the destination"))?,
    };
    Ok(Some(addresses))
}

/// A port in decimal digits; "heading zeroes are not permitted" (spec, 2.1), nor is a sign.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Bytes of a family's addresses that we read. What is valid and no TCP over IP counts as unknown,
/// and its addresses are skipped; other numbers "must be rejected" (spec, 2.2).
fn address_bytes(family: u8) -> Result<usize, HeaderError> {
    match family {
        0x11 => Ok(12),
        0x21 => Ok(36),
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(0),
        _ => Err(HeaderError::Malformed("an unknown family")),
    }
}

/// Both addresses, then both ports; `None` if there are none.
fn v2_addresses(bytes: &[u8]) -> Option<Addresses> {
    let (ips, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let (source, destination) = ips.split_at(ips.len() / 2);
    let &[a, b, c, d] = ports else {
        return None;
    };
    Some(Addresses {
        visitor: socket_address(ip(source)?, u16::from_be_bytes([a, b])),
        public: socket_address(ip(destination)?, u16::from_be_bytes([c, d])),
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = |bytes: [u8; 4]| IpAddr::from(bytes);
    let v6 = |bytes: [u8; 16]| IpAddr::from(bytes);
    let as_v4 = bytes.try_into().map(v4);
    as_v4.or_else(|_| bytes.try_into().map(v6)).ok()
}

fn socket_address(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

#[cfg(test)]
mod tests;
