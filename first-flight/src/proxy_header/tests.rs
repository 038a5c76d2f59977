//! What is a PROXY header, what is not, and what is left unread behind it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use proxy_header::{ProxiedAddress, ProxyHeader};
use tokio::io::ReadBuf;

use super::*;

/// What comes behind the header in these tests.
const REST: &[u8] = b"\x16\x03\x01 and so on";
const UNIX_ADDRESS_BYTES: usize = 216;

/// A header in some form that a test can read.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Addresses(String, String),
    Own,
    Undecided,
    NoHeader,
    Malformed,
    TooLong,
    Closed,
    Io,
}

impl From<Result<Option<Addresses>, HeaderError>> for Read {
    fn from(result: Result<Option<Addresses>, HeaderError>) -> Self {
        match result {
            Ok(Some(Addresses { visitor, public })) => {
                Self::Addresses(visitor.to_string(), public.to_string())
            }
            Ok(None) => Self::Own,
            Err(HeaderError::NoHeader) => Self::NoHeader,
            Err(HeaderError::Malformed(_)) => Self::Malformed,
            Err(HeaderError::TooLong) => Self::TooLong,
            Err(HeaderError::Closed) => Self::Closed,
            Err(HeaderError::Io(_)) => Self::Io,
        }
    }
}

/// A proxy that sends pieces, and then waits.
struct Pieces<'a>(Vec<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.retain(|piece| !piece.is_empty());
        let Some(piece) = self.0.first_mut() else {
            return Poll::Pending;
        };
        let (now, later) = piece.split_at(piece.len().min(buffer.remaining()));
        buffer.put_slice(now);
        *piece = later;
        Poll::Ready(Ok(()))
    }
}

/// What becomes of these pieces, and all that was not read of them.
fn read_pieces(pieces: &[&[u8]]) -> (Read, Vec<u8>) {
    let mut stream = Pieces(pieces.to_vec());
    (read_once(&mut stream), stream.0.concat())
}

/// What one poll makes of a stream that has all that will come.
fn read_once(stream: &mut (impl AsyncRead + Unpin)) -> Read {
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(read(stream)).poll(&mut cx) {
        Poll::Ready(result) => result.into(),
        Poll::Pending => Read::Undecided,
    }
}

fn read_all(bytes: &[u8]) -> Read {
    read_pieces(&[bytes]).0
}

fn addresses(visitor: &str, public: &str) -> Read {
    Read::Addresses(visitor.to_owned(), public.to_owned())
}

/// A header of version 2 by hand.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("at most 64 KiB");
    let fixed = [command, family];
    [&V2_SIGNATURE[..], &fixed, &length.to_be_bytes(), content].concat()
}

/// A header of version 2 by another implementation.
fn v2_of(visitor: &str, public: &str) -> Vec<u8> {
    let parse = |text: &str| text.parse().expect("an address");
    let mut bytes = Vec::new();
    ProxyHeader::with_address(ProxiedAddress::stream(parse(visitor), parse(public)))
        .encode_v2(&mut bytes)
        .expect("encodes");
    bytes
}

/// Sound headers, and what each says.
fn sound() -> Vec<(Vec<u8>, Read)> {
    let v4 = || addresses("203.0.113.7:50000", "192.0.2.1:443");
    let v6 = || addresses("[2001:db8::7]:1", "[2001:db8::1]:65535");
    let mut with_fields = v2_of("203.0.113.7:50000", "192.0.2.1:443");
    with_fields[15] += 10;
    with_fields.extend_from_slice(b"\x04\0\x07padding");
    vec![
        (
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
            v4(),
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n".to_vec(),
            v6(),
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 50000 443\r\n".to_vec(),
            v4(),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Read::Own),
        (b"PROXY UNKNOWN what \xff\ne'er\r\n".to_vec(), Read::Own),
        (v2_of("203.0.113.7:50000", "192.0.2.1:443"), v4()),
        (v2_of("[2001:db8::7]:1", "[2001:db8::1]:65535"), v6()),
        (
            v2_of("[::ffff:203.0.113.7]:50000", "[::ffff:192.0.2.1]:443"),
            v4(),
        ),
        (with_fields, v4()),
        (v2(0x20, 0x00, &[]), Read::Own),
        (v2(0x20, 0x11, &[1; 12]), Read::Own),
        (v2(0x20, 0xff, b"whatever"), Read::Own),
        (v2(0x21, 0x00, b"unspecified"), Read::Own),
        (v2(0x21, 0x31, &[b'/'; UNIX_ADDRESS_BYTES]), Read::Own),
        (v2(0x21, 0x12, &[1; 12]), Read::Own),
    ]
}

#[test]
fn a_sound_header_is_understood_and_not_a_byte_beyond_it_is_read() {
    for (header, says) in sound() {
        let sent = [&header[..], REST].concat();
        let shown = header.escape_ascii();
        assert_eq!(read_pieces(&[&sent]), (says, REST.to_vec()), "{shown}");
    }
}

#[test]
fn a_header_may_be_cut_anywhere() {
    for (header, says) in sound() {
        let sent = [&header[..], REST].concat();
        for cut in 0..=header.len() {
            let (first, second) = sent.split_at(cut);
            let (read, left) = read_pieces(&[first, second]);
            assert_eq!((&read, &left[..]), (&says, REST), "cut at {cut}");
        }
        let bytes: Vec<_> = sent.chunks(1).collect();
        assert_eq!(read_pieces(&bytes), (says, REST.to_vec()));
    }
}

#[test]
fn every_proper_prefix_is_undecided() {
    for (header, _) in sound() {
        for end in 0..header.len() {
            let shown = header[..end].escape_ascii();
            assert_eq!(read_all(&header[..end]), Read::Undecided, "{shown}");
        }
    }
}

#[test]
fn an_end_inside_a_header_is_nobodys_fault() {
    for (header, _) in sound() {
        for end in 0..header.len() {
            let (mut sent, shown) = (&header[..end], header[..end].escape_ascii());
            assert_eq!(read_once(&mut sent), Read::Closed, "{shown}");
        }
    }
}

#[test]
fn what_begins_otherwise_is_refused_at_the_first_byte_that_is_wrong() {
    let cases: [&[u8]; 9] = [
        b"\x16",
        b"G",
        b"\0",
        b" PROXY",
        b"proxy",
        b"PROXIED",
        b"PROXY\t",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\n\r",
    ];
    for bytes in cases {
        assert_eq!(read_all(bytes), Read::NoHeader, "{}", bytes.escape_ascii());
    }
}

#[test]
fn version_1_is_taken_in_one_spelling_only() {
    let cases = [
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 99999999999999999999",
        "PROXY TCP4 203.0.113.7 192.0.2.1 050000 443",
        "PROXY TCP4 203.0.113.7 192.0.2.1 +5000 443",
        "PROXY TCP4 203.0.113.7 192.0.2.1 -1 443",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 ",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443 ",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443 1",
        "PROXY  TCP4 203.0.113.7 192.0.2.1 50000 443",
        "PROXY TCP4  203.0.113.7 192.0.2.1 50000 443",
        "PROXY TCP4\t203.0.113.7 192.0.2.1 50000 443",
        "PROXY TCP4 203.0.113.07 192.0.2.1 50000 443",
        "PROXY TCP4 203.0.113 192.0.2.1 50000 443",
        "PROXY TCP4 2001:db8::7 2001:db8::1 50000 443",
        "PROXY TCP6 203.0.113.7 192.0.2.1 50000 443",
        "PROXY TCP6 [2001:db8::7] 2001:db8::1 50000 443",
        "PROXY TCP6 fe80::1%eth0 2001:db8::1 50000 443",
        "PROXY TCP4 visitor.example 192.0.2.1 50000 443",
        "PROXY UDP4 203.0.113.7 192.0.2.1 50000 443",
        "PROXY tcp4 203.0.113.7 192.0.2.1 50000 443",
        "PROXY UNKNOWNS",
        "PROXY ",
        "PROXY A",
        "PROXY unknown and long enough",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r",
    ];
    for line in cases {
        let header = format!("{line}\r\n");
        assert_eq!(read_all(header.as_bytes()), Read::Malformed, "{line:?}");
    }
    assert_eq!(
        read_all(b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"),
        addresses("0.0.0.0:0", "255.255.255.255:65535")
    );
}

/// The longest line that the spec names (2.1), with its line end 107 bytes.
#[test]
fn version_1_ends_within_107_bytes() {
    let address = "ffff:f...f:ffff".replace("f...f", &["ffff"; 6].join(":"));
    let unknown = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
    assert_eq!(unknown.len(), MAX_V1_BYTES);
    assert_eq!(read_all(unknown.as_bytes()), Read::Own);

    let tcp6 = unknown.replace("UNKNOWN", "TCP6");
    let both = format!("[{address}]:65535");
    assert_eq!(read_all(tcp6.as_bytes()), addresses(&both, &both));

    let longer = unknown.replace("UNKNOWN", "UNKNOWN ");
    assert_eq!(read_all(longer.as_bytes()), Read::TooLong);
    // As soon as two bytes for the line end would be too many.
    assert_eq!(read_all(&unknown.as_bytes()[..105]), Read::Undecided);
    assert_eq!(
        read_all(&[&b"PROXY UNKNOWN "[..], &[b'x'; 92]].concat()),
        Read::TooLong
    );
    let read = read_pieces(&[b"PROXY TCP4 ", &[b'1'; 1000]]);
    assert_eq!(read, (Read::TooLong, vec![b'1'; 1000 + 11 - MAX_V1_BYTES]));
}

#[test]
fn version_2_with_a_lie_in_it_is_refused() {
    let cases = [
        ("too short for IPv4", v2(0x21, 0x11, &[1; 11])),
        ("too short for IPv6", v2(0x21, 0x21, &[1; 35])),
        ("an unknown family", v2(0x21, 0x41, &[1; 40])),
        ("an unknown transport", v2(0x21, 0x13, &[1; 12])),
        ("no family but a transport", v2(0x21, 0x01, &[1; 12])),
        ("an unknown command", v2(0x22, 0x11, &[1; 12])),
        ("version 1 in binary", v2(0x11, 0x11, &[1; 12])),
        ("version 3", v2(0x31, 0x11, &[1; 12])),
    ];
    for (what, header) in cases {
        assert_eq!(read_all(&header), Read::Malformed, "{what}");
    }
}

#[test]
fn version_2_has_a_bound_that_is_checked_before_its_bytes_come() {
    let longest = v2(0x20, 0x00, &vec![0; MAX_V2_BYTES - V2_FIXED_BYTES]);
    let sent = [&longest[..], REST].concat();
    assert_eq!(read_pieces(&[&sent]), (Read::Own, REST.to_vec()));

    let longer = v2(0x20, 0x00, &vec![0; MAX_V2_BYTES - V2_FIXED_BYTES + 1]);
    assert_eq!(read_all(&longer[..V2_FIXED_BYTES]), Read::TooLong);
}

proptest! {
    #[test]
    fn what_another_implementation_writes_is_understood(
        visitor: (Ipv6Addr, u16),
        public: (Ipv6Addr, u16),
        v4: bool,
    ) {
        let address = |(ip, port): (Ipv6Addr, u16)| {
            let [.., a, b, c, d] = ip.octets();
            let ip = if v4 { IpAddr::from([a, b, c, d]) } else { ip.into() };
            SocketAddr::new(ip, port)
        };
        let (visitor, public) = (address(visitor), address(public));
        let header = ProxyHeader::with_address(ProxiedAddress::stream(visitor, public));
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let says = addresses(&canonical(visitor).to_string(), &canonical(public).to_string());

        let (mut text, mut binary) = (Vec::new(), Vec::new());
        header.encode_v1(&mut text).expect("encodes");
        header.encode_v2(&mut binary).expect("encodes");
        prop_assert_eq!(&read_all(&text), &says);
        prop_assert_eq!(&read_all(&binary), &says);
    }

    #[test]
    fn damage_never_panics_and_cuts_never_change_the_verdict(
        which in 0..15_usize,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut sent = [&sound()[which].0[..], REST].concat();
        for (at, byte) in damages {
            *at.get_mut(&mut sent) = byte;
        }
        let (first, second) = sent.split_at(cut.index(sent.len()));
        let (whole, cut) = (read_pieces(&[&sent]), read_pieces(&[first, second]));
        prop_assert_eq!(&cut.0, &whole.0);
        if matches!(whole.0, Read::Addresses(..) | Read::Own) {
            prop_assert_eq!(&cut.1, &whole.1);
        }
    }

    #[test]
    fn noise_behind_a_beginning_never_panics(
        start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE]),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let sent = [start, &noise].concat();
        let bytes: Vec<_> = sent.chunks(1).collect();
        prop_assert_eq!(read_pieces(&bytes).0, read_pieces(&[&sent]).0);
    }
}
