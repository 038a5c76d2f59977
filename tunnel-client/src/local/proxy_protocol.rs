//! What a local service may be told about a visitor: a PROXY protocol header, before all else.
//!
//! It is made anew from what the relay's header says; nothing that is between relay and agent alone
//! gets into it. Spec: <https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>.

use std::fmt;
use std::str::FromStr;

use tunnel_common::stream::header::StreamHeader;

/// The format of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// One line of text: the two addresses.
    V1,
    /// Binary: the two addresses, the server name, the protocol agreed with the visitor and the
    /// visit's id.
    V2,
}

/// Why a text names no [`ProxyProtocol`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the PROXY protocol has the versions 'v1' and 'v2'")]
pub struct BadProxyProtocol;

impl FromStr for ProxyProtocol {
    type Err = BadProxyProtocol;

    fn from_str(text: &str) -> Result<Self, BadProxyProtocol> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err(BadProxyProtocol),
        }
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl ProxyProtocol {
    /// The header for one visit. `agreed` is the protocol that was agreed with the visitor: what he
    /// merely offers is none, and a service might believe it.
    pub(super) fn header(self, visit: &StreamHeader, agreed: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = vec![];
        match self {
            Self::V1 => visit.addresses().encode_v1(&mut bytes),
            Self::V2 => visit.public_part(agreed).encode_v2(&mut bytes),
        }
        .expect("one family, and fields that are bounded");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use tunnel_common::stream::header::VisitId;
    use tunnel_common::wire::frame::EndpointRef;

    use super::*;

    fn visit() -> StreamHeader {
        StreamHeader {
            visitor: "203.0.113.7:50000".parse().expect("an address"),
            public: "192.0.2.1:443".parse().expect("an address"),
            server_name: Some("id.example.com".into()),
            alpn: Some(b"h2".to_vec()),
            visit: VisitId([9; 16]),
            endpoint: EndpointRef::default(),
        }
    }

    #[test]
    fn version_1_is_a_line_with_the_addresses() {
        let line = ProxyProtocol::V1.header(&visit(), Some(b"http/1.1"));
        assert_eq!(
            line,
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec()
        );
        let mixed = StreamHeader {
            visitor: "[2001:db8::7]:50000".parse().expect("an address"),
            ..visit()
        };
        let line = ProxyProtocol::V1.header(&mixed, None);
        assert_eq!(
            line,
            b"PROXY TCP6 2001:db8::7 ::ffff:192.0.2.1 50000 443\r\n".to_vec()
        );
    }

    /// The fields behind the addresses, by type.
    fn fields(header: &[u8]) -> Vec<(u8, &[u8])> {
        let (mut rest, mut fields) = (&header[16 + 12..], vec![]);
        while let [kind, high, low, more @ ..] = rest {
            let (value, behind) = more.split_at(u16::from_be_bytes([*high, *low]).into());
            fields.push((*kind, value));
            rest = behind;
        }
        fields
    }

    #[test]
    fn version_2_has_the_agreed_protocol_and_nothing_private() {
        let header = ProxyProtocol::V2.header(&visit(), Some(b"http/1.1"));
        let (name, id) = (&b"id.example.com"[..], &[9; 16][..]);
        assert_eq!(
            fields(&header),
            [(2, name), (1, b"http/1.1"), (5, id)],
            "AUTHORITY, ALPN, UNIQUE_ID"
        );
        let header = ProxyProtocol::V2.header(&visit(), None);
        assert_eq!(fields(&header), [(2, name), (5, id)]);
    }

    #[test]
    fn a_version_is_named_or_refused() {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for text in ["", "1", "v3", "V1"] {
            assert_eq!(text.parse::<ProxyProtocol>(), Err(BadProxyProtocol));
        }
    }
}
