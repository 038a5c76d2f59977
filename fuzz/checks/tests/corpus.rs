//! Every file of the committed corpora, as a plain test: it is still what its name says.

use std::fs;
use std::path::Path;

use fuzz_checks::verdict::Verdict;
use fuzz_checks::{client_hello, control_frames, names, plain_http, proxy_header, stream_header};

fn verdict_in(name: &str) -> Option<Verdict> {
    match name.split_once('-')?.0 {
        "taken" => Some(Verdict::Taken),
        "refused" => Some(Verdict::Refused),
        "undecided" => Some(Verdict::Undecided),
        _ => None,
    }
}

/// Checks every file of one corpus; there must be some that are taken and some that are not.
fn holds(target: &str, check: fn(&[u8]) -> Verdict) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let mut verdicts = vec![];
    for entry in fs::read_dir(folder.join(target)).expect("a corpus") {
        let path = entry.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let expected = verdict_in(&name)
            .unwrap_or_else(|| panic!("{name}: taken-…, refused-… or undecided-…"));
        let input = fs::read(&path).expect("is read");
        assert_eq!(check(&input), expected, "{target}/{name}");
        verdicts.push(expected);
    }
    assert!(verdicts.contains(&Verdict::Taken), "{target}");
    assert!(verdicts.iter().any(|v| *v != Verdict::Taken), "{target}");
}

#[test]
fn first_flights_are_what_their_names_say() {
    holds("client_hello", client_hello::check);
}

#[test]
fn control_frames_are_what_their_names_say() {
    holds("control_frames", control_frames::check);
}

#[test]
fn names_are_what_their_names_say() {
    holds("names", names::check);
}

#[test]
fn http_heads_are_what_their_names_say() {
    holds("plain_http", plain_http::check);
}

#[test]
fn proxy_headers_are_what_their_names_say() {
    holds("proxy_header", proxy_header::check);
}

#[test]
fn stream_headers_are_what_their_names_say() {
    holds("stream_header", stream_header::check);
}
