//! What holds for every first flight, however it is cut, padded or damaged.

use proptest::prelude::*;
use proptest::sample::Index;

use super::builder::{Hello, message_of, record, records};
use super::script::{Then, read_from};
use super::{FirstFlight, MAX_WIRE, ReadError, accepted};

/// The outcome of a flight in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Undecided,
    Tls(Option<String>, Vec<Vec<u8>>),
    Http,
    Refused(u8),
    Failed,
}

/// Beginnings that lead noise deeper into the reader.
const STARTS: &[&[u8]] = &[
    b"",
    b"\x16",
    b"\x16\x03\x01",
    b"GET ",
    b"\x16\x03\x01\x01\x00\x01\x00",
];

/// What becomes of these segments, after checking that what was read is the beginning of what was
/// sent and within the bound.
fn outcome<T: AsRef<[u8]>>(segments: &[T]) -> Outcome {
    let sent: Vec<u8> = segments
        .iter()
        .flat_map(|segment| segment.as_ref().to_vec())
        .collect();
    let kept = |bytes: &[u8]| {
        assert!(bytes.len() <= MAX_WIRE, "{} bytes were kept", bytes.len());
        assert!(sent.starts_with(bytes), "other bytes were kept than sent");
    };
    match read_from(segments, Then::Waits) {
        None => Outcome::Undecided,
        Some(Ok(FirstFlight::Tls(hello))) => {
            kept(&hello.bytes);
            Outcome::Tls(hello.server_name, hello.alpn)
        }
        Some(Ok(FirstFlight::Http(bytes))) => {
            kept(&bytes);
            Outcome::Http
        }
        Some(Err(ReadError::Refused { alert, .. })) => Outcome::Refused(alert.description()),
        Some(Err(_)) => Outcome::Failed,
    }
}

/// `bytes` in pieces of these lengths, over and over.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &length in lengths.iter().cycle() {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    pieces
}

/// Lengths of pieces, most of them short.
fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 1..20_usize, 1 => 20..3_000_usize], 1..8)
}

/// One thing that can happen to bytes on their way.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bits) => *at.get_mut(bytes) ^= bits,
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(from, to) => {
                let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
                bytes.drain(a.min(b)..a.max(b));
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        1 => any::<Index>().prop_map(Damage::Cut),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, new)| Damage::Insert(at, new)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Remove(from, to)),
    ]
}

proptest! {
    #[test]
    fn any_fragmentation_of_a_hello_gives_the_same_result(
        name in "[a-z][a-z0-9]{0,20}(\\.[a-z]{1,20}){0,3}",
        alpn in prop::collection::vec("[a-z0-9/.]{1,12}", 1..4),
        total in 300..4_000_usize,
        record_lengths in lengths(),
        segment_lengths in lengths(),
        surplus in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let protocols: Vec<_> = alpn.iter().map(|name| name.as_bytes()).collect();
        let message = Hello::to(&name).with_alpn(&protocols).padded_to(total).message();
        let fragments = pieces(&message, &record_lengths);
        let records: Vec<u8> = fragments.into_iter().flat_map(record).collect();
        let wire = [&records[..], &surplus].concat();

        let hello = accepted(&pieces(&wire, &segment_lengths));

        prop_assert_eq!(hello.server_name.as_deref(), Some(&name[..]));
        prop_assert_eq!(hello.alpn, protocols);
        prop_assert!(hello.bytes.len() >= records.len());
        prop_assert_eq!(&hello.bytes[..], &wire[..hello.bytes.len()]);
    }

    #[test]
    fn a_damaged_hello_never_panics_and_segments_never_change_the_verdict(
        record_length in 1..600_usize,
        segment_lengths in lengths(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let message = Hello::to("abc.tunnel.example").with_alpn(&[b"h2"]).message();
        let mut wire = records(&message, record_length);
        damages.iter().for_each(|damage| damage.apply(&mut wire));

        prop_assert_eq!(outcome(&pieces(&wire, &segment_lengths)), outcome(&[&wire]));
    }

    #[test]
    fn a_message_damaged_inside_sound_records_never_panics(
        record_length in 1..600_usize,
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let mut body = Hello::to("abc.tunnel.example").with_alpn(&[b"h2"]).message().split_off(4);
        damages.iter().for_each(|damage| damage.apply(&mut body));
        let wire = records(&message_of(1, &body), record_length);

        // The records are whole, so there is always a verdict.
        let outcome = outcome(&[&wire]);
        prop_assert!(matches!(outcome, Outcome::Tls(..) | Outcome::Refused(_)), "{outcome:?}");
    }

    #[test]
    fn noise_never_panics(
        start in prop::sample::select(STARTS),
        noise in prop::collection::vec(any::<u8>(), 0..3_000),
        segment_lengths in lengths(),
    ) {
        let wire = [start, &noise[..]].concat();
        prop_assert_eq!(outcome(&pieces(&wire, &segment_lengths)), outcome(&[&wire]));
    }
}
