//! The answer to plain HTTP: a redirect within bounds or the fixed 400, and never a byte in it that
//! could end a line.

use std::cell::Cell;

use first_flight::plain_http::answer;

use crate::verdict::Verdict;

/// The public port of the redirects.
const PORT: u16 = 8443;

/// Checks the answer to the head in `input`.
pub fn check(input: &[u8]) -> Verdict {
    let asked = Cell::new(0);
    let is_ours = |host: &str| {
        asked.set(asked.get() + 1);
        assert_is_host(host);
        true
    };
    let ours = answer(input, is_ours, PORT);
    assert!(asked.get() <= 1);
    let refused = answer(input, |_| false, PORT);
    assert!(refused.starts_with(b"HTTP/1.1 400 "));
    if ours == refused {
        return Verdict::Refused;
    }
    assert_is_redirect(&ours, input.len());
    Verdict::Taken
}

fn assert_is_host(host: &str) {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    assert!(host.bytes().all(allowed), "{host:?}");
    assert!((1..=253).contains(&host.len()), "{host:?}");
}

fn assert_is_redirect(answer: &[u8], head: usize) {
    let text = str::from_utf8(answer).expect("ASCII");
    assert!(text.len() <= head + 200, "{} bytes for {head}", text.len());
    let lines: Vec<_> = text.split("\r\n").collect();
    let [status, location, close, length, "", ""] = lines[..] else {
        panic!("{text:?}");
    };
    assert_eq!(status, "HTTP/1.1 308 Permanent Redirect");
    assert_eq!((close, length), ("Connection: close", "Content-Length: 0"));
    let url = location.strip_prefix("Location: https://").expect("a URL");
    assert!(url.bytes().all(|b| b.is_ascii_graphic()), "{url:?}");
    let (authority, _) = url.split_once('/').expect("a path");
    let (host, port) = authority.split_once(':').expect("a port");
    assert_eq!(port, PORT.to_string());
    assert_is_host(host);
}
