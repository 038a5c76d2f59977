//! The header of a proxy before the relay: cuts do not matter, not a byte beyond it is read, and what
//! it says is what another parser reads too.

use ::proxy_header::{ParseConfig, ProxyHeader};
use first_flight::proxy_header::{self, Addresses, HeaderError, MAX_V1_BYTES, MAX_V2_BYTES};

use crate::reads::{self, Reads};
use crate::verdict::Verdict;

/// What was read, and how many bytes that took.
type Outcome = (Option<Result<Option<Addresses>, HeaderError>>, usize);

/// Checks the header in `input`; see [`reads::split`] for its form.
pub fn check(input: &[u8]) -> Verdict {
    let (lengths, wire) = reads::split(input);
    let (outcome, read) = outcome(wire, lengths);
    let (whole, read_whole) = self::outcome(wire, &[]);
    assert_eq!(format!("{outcome:?}"), format!("{whole:?}"));
    match &outcome {
        None => assert_eq!(read, wire.len(), "it waits, and there is more"),
        Some(Ok(addresses)) => {
            assert_eq!(read, read_whole);
            assert_ends_there(&wire[..read]);
            if let Some(addresses) = addresses {
                assert_others_agree(&wire[..read], *addresses);
            }
        }
        Some(Err(_)) => {}
    }
    Verdict::of(outcome.as_ref())
}

fn outcome(wire: &[u8], lengths: &[u8]) -> Outcome {
    let mut stream = Reads::new(wire, lengths);
    let outcome = reads::run(proxy_header::read(&mut stream));
    let bound = if wire.first() == Some(&b'P') {
        MAX_V1_BYTES
    } else {
        MAX_V2_BYTES
    };
    assert!(stream.given() <= bound, "{} bytes", stream.given());
    (outcome, stream.given())
}

/// One byte less is no header yet.
fn assert_ends_there(header: &[u8]) {
    let (outcome, _) = outcome(&header[..header.len() - 1], &[]);
    assert!(outcome.is_none(), "{outcome:?}");
}

fn assert_others_agree(header: &[u8], Addresses { visitor, public }: Addresses) {
    let (theirs, length) = ProxyHeader::parse(header, ParseConfig::default()).expect("a header");
    assert_eq!(length, header.len());
    let address = theirs.proxied_address().expect("addresses");
    for (ours, theirs) in [(visitor, address.source), (public, address.destination)] {
        assert_eq!(
            (ours.ip(), ours.port()),
            (theirs.ip().to_canonical(), theirs.port())
        );
    }
}
