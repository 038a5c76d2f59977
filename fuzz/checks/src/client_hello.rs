//! A visitor's first flight: the verdict does not depend on how it is cut, what is kept is what was
//! sent, and never more than 32 KiB.

use first_flight::client_hello::{self, FirstFlight, MAX_WIRE, ReadError};

use crate::reads::{self, Reads};
use crate::verdict::Verdict;

/// What a flight is, without the bytes that happened to be read behind it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Undecided,
    Tls(Option<String>, Vec<Vec<u8>>),
    Http,
    Refused(u8),
    Failed,
}

/// Checks the flight in `input`; see [`reads::split`] for its form.
pub fn check(input: &[u8]) -> Verdict {
    let (lengths, wire) = reads::split(input);
    let outcome = outcome(wire, lengths);
    assert_eq!(outcome, self::outcome(wire, &[]), "cut, and at once");
    match outcome {
        Outcome::Undecided => Verdict::Undecided,
        Outcome::Tls(..) | Outcome::Http => Verdict::Taken,
        Outcome::Refused(_) => Verdict::Refused,
        Outcome::Failed => panic!("nothing failed and nobody closed"),
    }
}

fn outcome(wire: &[u8], lengths: &[u8]) -> Outcome {
    let mut stream = Reads::new(wire, lengths);
    let outcome = reads::run(client_hello::read(&mut stream));
    assert!(stream.most_held() <= MAX_WIRE, "{}", stream.most_held());
    let read = &wire[..stream.given()];
    match outcome {
        None => {
            assert_eq!(read.len(), wire.len(), "it waits, and there is more");
            Outcome::Undecided
        }
        Some(Ok(FirstFlight::Tls(hello))) => {
            assert_eq!(hello.bytes, read);
            Outcome::Tls(hello.server_name, hello.alpn)
        }
        Some(Ok(FirstFlight::Http(bytes))) => {
            assert_eq!(bytes, read);
            Outcome::Http
        }
        Some(Err(ReadError::Refused { alert, .. })) => Outcome::Refused(alert.description()),
        Some(Err(_)) => Outcome::Failed,
    }
}
