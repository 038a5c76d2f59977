//! The header that opens every stream: a PROXY protocol v2 header, without exception.
//!
//! It carries the visitor's address and, as type-length-values, what the relay read from the
//! ClientHello, the visit's id for both logs, and our own `0xE0`: the version of this format and
//! the `ref` of the endpoint. An agent that does not know the version or the ref resets the stream;
//! it never guesses. Spec: <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>, 2.2.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::wire::frame::EndpointRef;

/// The longest header, all in all: the fields below at their longest, with room for one more.
pub const MAX_HEADER_BYTES: usize = 1024;
/// Signature, version, family and length: what must be read to know how much follows.
const FIXED_BYTES: usize = 16;
/// The type of the field that names the endpoint; the range 0xE0-0xEF is for private use.
const TYPE_ENDPOINT: u8 = 0xE0;
/// The format of the fields that are ours. A receiver must understand it.
const VERSION: u8 = 1;
/// A host name or a protocol name that is longer is none, and is left out.
const MAX_TEXT_BYTES: usize = 255;

/// Tells one visit from all others in the logs of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VisitId(pub [u8; 16]);

impl fmt::Display for VisitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for VisitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the relay tells the agent about a visit before the visitor's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The visitor's address.
    pub visitor: SocketAddr,
    /// The relay's address that the visitor came to.
    pub public: SocketAddr,
    /// The server name of the ClientHello.
    pub server_name: Option<String>,
    /// The first protocol that the visitor offers.
    pub alpn: Option<Vec<u8>>,
    /// The visit's id.
    pub visit: VisitId,
    /// Which of the agent's endpoints is meant.
    pub endpoint: EndpointRef,
}

/// Why a stream's header can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The stream ended or broke inside the header.
    #[error("the stream broke inside its header: {0}")]
    Io(#[from] io::Error),
    /// It announces more than [`MAX_HEADER_BYTES`].
    #[error("a stream header of more than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    /// It is no PROXY v2 header, or lacks what ours must have.
    #[error("a stream header that can not be read: {0}")]
    Malformed(&'static str),
    /// A newer format.
    #[error("a stream header of version {0}, which this agent does not know")]
    Version(u8),
}

impl StreamHeader {
    /// The two addresses and nothing else, of one family.
    pub fn addresses(&self) -> ProxyHeader<'static> {
        let (source, destination) = one_family(self.visitor, self.public);
        ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
    }

    /// What any receiver may know: the addresses, the server name, the visit's id, and `alpn`
    /// instead of our own. A text of more than 255 bytes is left out.
    pub fn public_part(&self, alpn: Option<&[u8]>) -> ProxyHeader<'static> {
        let mut header = self.addresses();
        let fits = |text: &[u8]| text.len() <= MAX_TEXT_BYTES;
        let name = self.server_name.as_deref();
        if let Some(name) = name.filter(|name| fits(name.as_bytes())) {
            header.append_tlv(Tlv::Authority(name.into()));
        }
        if let Some(alpn) = alpn.filter(|alpn| fits(alpn)) {
            header.append_tlv(Tlv::Alpn(alpn.into()));
        }
        header.append_tlv(Tlv::UniqueId((&self.visit.0[..]).into()));
        header
    }

    /// The header's bytes, to be sent in one write with the visitor's first ones.
    pub fn encode(&self) -> Vec<u8> {
        let mut header = self.public_part(self.alpn.as_deref());
        let mut endpoint = vec![VERSION];
        endpoint.extend_from_slice(self.endpoint.as_str().as_bytes());
        header.append_tlv(Tlv::Custom(TYPE_ENDPOINT, endpoint.into()));

        let mut bytes = Vec::with_capacity(256);
        header
            .encode_v2(&mut bytes)
            .expect("one family, and fields that are bounded above");
        debug_assert!(bytes.len() <= MAX_HEADER_BYTES);
        bytes
    }

    /// Reads a header from the beginning of a stream, and not a byte beyond it.
    ///
    /// The caller sets the deadline. A cancelled call has consumed an unknown part: the stream is
    /// then spent.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, HeaderError> {
        let mut bytes = [0; MAX_HEADER_BYTES];
        stream.read_exact(&mut bytes[..FIXED_BYTES]).await?;
        let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        let whole = FIXED_BYTES + rest;
        if whole > MAX_HEADER_BYTES {
            return Err(HeaderError::TooLong);
        }
        stream.read_exact(&mut bytes[FIXED_BYTES..whole]).await?;
        Self::parse(&bytes[..whole])
    }

    fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let config = ParseConfig {
            include_tlvs: true,
            allow_v1: false,
            allow_v2: true,
        };
        let (header, _) = ProxyHeader::parse(bytes, config)
            .map_err(|_| HeaderError::Malformed("no PROXY protocol v2 header"))?;
        let address = header
            .proxied_address()
            .ok_or(HeaderError::Malformed("no address"))?;
        let mut fields = Fields::default();
        for tlv in header.tlvs() {
            fields.take(tlv.map_err(|_| HeaderError::Malformed("a broken field"))?)?;
        }
        Ok(Self {
            visitor: canonical(address.source),
            public: canonical(address.destination),
            server_name: fields.server_name,
            alpn: fields.alpn,
            visit: fields.visit.ok_or(HeaderError::Malformed("no visit id"))?,
            endpoint: fields
                .endpoint
                .ok_or(HeaderError::Malformed("no endpoint"))?,
        })
    }
}

#[derive(Default)]
struct Fields {
    server_name: Option<String>,
    alpn: Option<Vec<u8>>,
    visit: Option<VisitId>,
    endpoint: Option<EndpointRef>,
}

impl Fields {
    fn take(&mut self, tlv: Tlv<'_>) -> Result<(), HeaderError> {
        match tlv {
            Tlv::Authority(name) => self.server_name = Some(name.into_owned()),
            Tlv::Alpn(alpn) => self.alpn = Some(alpn.into_owned()),
            Tlv::UniqueId(id) => {
                let id = id.as_ref().try_into();
                self.visit = Some(VisitId(id.map_err(|_| HeaderError::Malformed("visit id"))?));
            }
            Tlv::Custom(TYPE_ENDPOINT, value) => self.endpoint = Some(parse_endpoint(&value)?),
            _ => {}
        }
        Ok(())
    }
}

fn parse_endpoint(value: &[u8]) -> Result<EndpointRef, HeaderError> {
    match value {
        [VERSION, name @ ..] => std::str::from_utf8(name)
            .ok()
            .and_then(|name| EndpointRef::try_from(name.to_owned()).ok())
            .ok_or(HeaderError::Malformed("the endpoint's ref")),
        [version, ..] => Err(HeaderError::Version(*version)),
        [] => Err(HeaderError::Malformed("an empty endpoint field")),
    }
}

/// A PROXY header has both addresses of one family: where they differ, both become IPv6.
fn one_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let (a, b) = (canonical(a), canonical(b));
    if a.is_ipv4() == b.is_ipv4() {
        (a, b)
    } else {
        (mapped(a), mapped(b))
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is IPv4 again.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> StreamHeader {
        StreamHeader {
            visitor: "203.0.113.7:50000".parse().expect("an address"),
            public: "192.0.2.1:443".parse().expect("an address"),
            server_name: Some("id.example.com".into()),
            alpn: Some(b"http/1.1".to_vec()),
            visit: VisitId([9; 16]),
            endpoint: EndpointRef::default(),
        }
    }

    async fn read(mut bytes: &[u8]) -> Result<(StreamHeader, usize), HeaderError> {
        let header = StreamHeader::read(&mut bytes).await?;
        Ok((header, bytes.len()))
    }

    #[tokio::test]
    async fn the_agent_reads_what_the_relay_wrote_and_nothing_beyond() {
        let mut bytes = header().encode();
        bytes.extend_from_slice(b"visitor's first bytes");
        let (read, left) = read(&bytes).await.expect("reads");
        assert_eq!(read, header());
        assert_eq!(left, "visitor's first bytes".len());
    }

    #[tokio::test]
    async fn addresses_of_two_families_come_through() {
        let mixed = StreamHeader {
            public: "[2001:db8::1]:443".parse().expect("an address"),
            ..header()
        };
        let (read, _) = read(&mixed.encode()).await.expect("reads");
        assert_eq!(read, mixed);
    }

    #[tokio::test]
    async fn the_longest_fields_fit_the_bound_and_longer_ones_are_left_out() {
        let long = StreamHeader {
            server_name: Some("n".repeat(255)),
            alpn: Some(vec![b'a'; 255]),
            endpoint: EndpointRef::try_from("r".repeat(64)).expect("a ref"),
            public: "[2001:db8::1]:443".parse().expect("an address"),
            ..header()
        };
        let bytes = long.encode();
        assert!(bytes.len() <= MAX_HEADER_BYTES, "{}", bytes.len());
        assert_eq!(read(&bytes).await.expect("reads").0, long);

        let too_long = StreamHeader {
            server_name: Some("n".repeat(256)),
            ..header()
        };
        assert_eq!(
            read(&too_long.encode()).await.expect("reads").0.server_name,
            None
        );
    }

    #[tokio::test]
    async fn every_cut_is_an_error() {
        let bytes = header().encode();
        for cut in 0..bytes.len() {
            assert!(
                matches!(read(&bytes[..cut]).await, Err(HeaderError::Io(_))),
                "cut at {cut}"
            );
        }
    }

    #[tokio::test]
    async fn a_length_over_the_bound_is_refused_before_it_is_read() {
        let mut bytes = header().encode();
        bytes[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(matches!(read(&bytes).await, Err(HeaderError::TooLong)));
    }

    #[tokio::test]
    async fn a_newer_version_is_named_and_not_guessed() {
        let mut bytes = header().encode();
        let version = bytes.len() - "main".len() - 1;
        bytes[version] = 2;
        assert!(matches!(read(&bytes).await, Err(HeaderError::Version(2))));
    }

    #[tokio::test]
    async fn a_header_without_an_endpoint_is_refused() {
        let mut bytes = Vec::new();
        let header =
            ProxyHeader::with_address(ProxiedAddress::stream(header().visitor, header().public));
        header.encode_v2(&mut bytes).expect("encodes");
        assert!(matches!(read(&bytes).await, Err(HeaderError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(at in 0..100_usize, value: u8, cut in 0..100_usize) {
            let mut bytes = header().encode();
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
            let _ = StreamHeader::parse(&bytes[..cut.min(bytes.len())]);
            let _ = StreamHeader::parse(&bytes);
        }
    }
}
