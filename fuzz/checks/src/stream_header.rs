//! The header of a stream, which an agent reads from a relay: not a byte beyond it is read, and what
//! was understood is written and read again unchanged.

use tunnel_common::stream::header::{HeaderError, MAX_HEADER_BYTES, StreamHeader};

use crate::reads::{self, Reads};
use crate::verdict::Verdict;

/// A name of more bytes is left out when a header is written.
const MAX_TEXT_BYTES: usize = 255;

/// Checks the header in `input`; see [`reads::split`] for its form.
pub fn check(input: &[u8]) -> Verdict {
    let (lengths, wire) = reads::split(input);
    let (outcome, read) = outcome(wire, lengths);
    let (whole, read_whole) = self::outcome(wire, &[]);
    assert_eq!(format!("{outcome:?}"), format!("{whole:?}"));
    assert_eq!(read, read_whole);
    if let Some(Ok(header)) = &outcome {
        assert_comes_back(header.clone());
    }
    Verdict::of(outcome.as_ref())
}

fn outcome(wire: &[u8], lengths: &[u8]) -> (Option<Result<StreamHeader, HeaderError>>, usize) {
    let mut stream = Reads::new(wire, lengths);
    let outcome = reads::run(StreamHeader::read(&mut stream));
    assert!(stream.given() <= MAX_HEADER_BYTES);
    (outcome, stream.given())
}

fn assert_comes_back(mut header: StreamHeader) {
    header.server_name = header.server_name.filter(|n| n.len() <= MAX_TEXT_BYTES);
    header.alpn = header.alpn.filter(|a| a.len() <= MAX_TEXT_BYTES);
    let bytes = header.encode();
    let (again, read) = outcome(&bytes, &[]);
    assert_eq!(read, bytes.len());
    assert_eq!(again.expect("whole").expect("a header"), header);
}
