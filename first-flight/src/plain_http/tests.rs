//! Where plain-text visitors are sent, and who is sent nowhere.

use proptest::prelude::*;

use super::*;

/// Only this host is ours in these tests.
const OURS: &str = "abc.tunnel.example";

/// The answer to `head` from a relay on `port`.
fn answer_on(port: u16, head: impl AsRef<[u8]>) -> String {
    String::from_utf8(answer(head.as_ref(), |host| host == OURS, port)).expect("an answer in ASCII")
}

/// Where a GET with this target and these header lines is sent; `None` if it gets the 400.
fn location(target: &str, headers: &str) -> Option<String> {
    let answer = answer_on(443, format!("GET {target} HTTP/1.1\r\n{headers}\r\n"));
    if answer == BAD_REQUEST {
        return None;
    }
    let location = answer
        .strip_prefix("HTTP/1.1 308 Permanent Redirect\r\nLocation: ")
        .expect("a redirect");
    let (location, rest) = location.split_once("\r\n").expect("more lines");
    assert_eq!(rest, "Connection: close\r\nContent-Length: 0\r\n\r\n");
    Some(location.to_owned())
}

/// Where a request for `/` with this Host value is sent.
fn location_of_host(host: &str) -> Option<String> {
    location("/", &format!("Host: {host}\r\n"))
}

#[test]
fn a_visitor_of_ours_is_sent_to_the_same_page_over_https() {
    assert_eq!(
        answer_on(
            443,
            "POST /a/b?c=d&e HTTP/1.1\r\nHost: abc.tunnel.example\r\nContent-Length: 3\r\n\r\nabc"
        ),
        "HTTP/1.1 308 Permanent Redirect\r\n\
         Location: https://abc.tunnel.example/a/b?c=d&e\r\n\
         Connection: close\r\n\
         Content-Length: 0\r\n\r\n"
    );
}

#[test]
fn the_port_is_named_unless_it_is_the_usual_one() {
    let answer = answer_on(8443, "GET / HTTP/1.0\nHost: abc.tunnel.example:80\n\n");
    assert!(
        answer.contains("\r\nLocation: https://abc.tunnel.example:8443/\r\n"),
        "{answer}"
    );
}

#[test]
fn the_bad_request_has_the_length_it_says() {
    let (head, body) = BAD_REQUEST.split_once("\r\n\r\n").expect("an empty line");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}", body.len()))
            && head.contains("\r\nConnection: close\r\n"),
        "{head}"
    );
}

#[test]
fn the_host_is_compared_without_port_case_and_one_trailing_dot() {
    for host in [
        "abc.tunnel.example",
        "ABC.Tunnel.Example",
        "abc.tunnel.example.",
        "abc.tunnel.example:80",
        "abc.tunnel.example.:",
        " abc.tunnel.example \t",
    ] {
        assert_eq!(
            location_of_host(host).as_deref(),
            Some("https://abc.tunnel.example/"),
            "{host:?}"
        );
    }
}

#[test]
fn nobody_is_sent_to_a_host_that_is_not_ours() {
    let hosts = [
        "",
        ".",
        "evil.example",
        "abc.tunnel.example..",
        "abc.tunnel.example.evil.example",
        "evil.example@abc.tunnel.example",
        "abc.tunnel.example:80:80",
        "abc.tunnel.example:65536",
        "abc.tunnel.example:+80",
        "abc.tunnel.example, evil.example",
        "abc.tunnel.example/path",
        "[::1]",
        "[::1]:80",
        "127.0.0.1",
        "bücher.example",
    ];
    for host in hosts {
        assert_eq!(location_of_host(host), None, "{host:?}");
    }
}

#[test]
fn a_host_of_impossible_length_is_refused_before_anybody_is_asked() {
    let asked_for = |host: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        String::from_utf8(answer(head.as_bytes(), |_| true, 443)).expect("an answer in ASCII")
    };
    assert!(asked_for(&"a".repeat(MAX_HOST_LEN)).starts_with("HTTP/1.1 308 "));
    for host in ["", ".", ":80", &"a".repeat(MAX_HOST_LEN + 1)] {
        assert_eq!(asked_for(host), BAD_REQUEST, "{host:?}");
    }
}

#[test]
fn a_request_names_its_host_exactly_once() {
    assert_eq!(location("/", ""), None, "no host");
    assert_eq!(
        location(
            "/",
            "Host: abc.tunnel.example\r\nhost: abc.tunnel.example\r\n"
        ),
        None,
        "one host twice"
    );
    assert_eq!(
        location("/", "HOST: abc.tunnel.example\r\nAccept: */*\r\n").as_deref(),
        Some("https://abc.tunnel.example/")
    );
}

#[test]
fn a_target_in_absolute_form_overrides_the_host_header() {
    let cases = [
        (
            "http://abc.tunnel.example/x?y",
            Some("https://abc.tunnel.example/x?y"),
        ),
        (
            "HTTP://ABC.tunnel.example:80",
            Some("https://abc.tunnel.example/"),
        ),
        (
            "http://abc.tunnel.example?y",
            Some("https://abc.tunnel.example/?y"),
        ),
        ("http://evil.example/", None),
        ("http:///path", None),
        ("http://evil.example@abc.tunnel.example/", None),
        ("https://abc.tunnel.example/", None),
        ("ftp://abc.tunnel.example/", None),
    ];
    for (target, expected) in cases {
        assert_eq!(
            location(target, "Host: whatever.example\r\n").as_deref(),
            expected,
            "{target}"
        );
    }
    assert_eq!(
        location("http://evil.example/", "Host: abc.tunnel.example\r\n"),
        None
    );
    assert_eq!(
        location("http://abc.tunnel.example/", ""),
        None,
        "the Host header is needed all the same"
    );
}

#[test]
fn a_target_without_a_path_can_not_be_redirected() {
    for target in [
        "*",
        "abc.tunnel.example:443",
        "abc.tunnel.example",
        "/#fragment",
        "?query",
    ] {
        assert_eq!(
            location(target, "Host: abc.tunnel.example\r\n"),
            None,
            "{target}"
        );
    }
}

#[test]
fn a_path_that_looks_like_a_host_stays_a_path() {
    assert_eq!(
        location("//evil.example/", "Host: abc.tunnel.example\r\n").as_deref(),
        Some("https://abc.tunnel.example//evil.example/")
    );
}

#[test]
fn no_line_of_the_answer_can_be_forged() {
    let heads: [&[u8]; 5] = [
        b"GET /\rSet-Cookie:x HTTP/1.1\r\nHost: abc.tunnel.example\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: abc.tunnel.example\r\n\r\n",
        b"GET /\xc3\xbc HTTP/1.1\r\nHost: abc.tunnel.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: abc.tunnel.example\rSet-Cookie:x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: abc.tunnel.example\r\n Set-Cookie:x\r\n\r\n",
    ];
    for head in heads {
        assert_eq!(answer_on(443, head), BAD_REQUEST, "{}", head.escape_ascii());
    }
    // Escaped they are only a path.
    let escaped = location("/%0d%0aSet-Cookie:x", "Host: abc.tunnel.example\r\n");
    assert_eq!(
        escaped.as_deref(),
        Some("https://abc.tunnel.example/%0d%0aSet-Cookie:x")
    );
}

#[test]
fn what_is_no_http_1_request_gets_the_short_answer() {
    let endless = format!(
        "GET / HTTP/1.1\r\nHost: abc.tunnel.example\r\nX: {}",
        "x".repeat(8_000)
    );
    let crowded = format!(
        "GET / HTTP/1.1\r\nHost: abc.tunnel.example\r\n{}\r\n",
        "X: y\r\n".repeat(MAX_HEADERS)
    );
    for head in [
        "",
        "GET ",
        "GET /\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/3.0\r\n\r\n",
        &endless,
        &crowded,
    ] {
        assert_eq!(answer_on(443, head), BAD_REQUEST, "{head:.40}");
    }
}

proptest! {
    #[test]
    fn any_head_gets_one_of_two_answers_of_known_shape(
        target in prop_oneof![Just("/".to_owned()), "/[ -~]{0,30}", "\\PC{0,30}"],
        host in prop_oneof![3 => Just(OURS.to_owned()), 1 => "[ -~]{0,30}"],
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let start = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
        let answer = answer_on(443, [start.as_bytes(), &tail, b"\r\n\r\n"].concat());
        let redirect = "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://abc.tunnel.example/";
        let redirects = answer.starts_with(redirect) && answer.lines().count() == 5;
        prop_assert!(redirects || answer == BAD_REQUEST, "{}", answer);
    }
}
