//! What the reader makes of odd, hostile and perfectly ordinary first flights.

mod builder;
mod names;
mod properties;
mod script;

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use self::builder::{Hello, extension, message_of, record, records, short_vec};
use self::script::{Script, Then, poll_times, read_from};
use super::*;

/// The ClientHello in a flight that must be complete, from a visitor that sends no more and does
/// not close.
fn accepted<T: AsRef<[u8]>>(segments: &[T]) -> ClientHello {
    match read_from(segments, Then::Waits) {
        Some(Ok(FirstFlight::Tls(hello))) => hello,
        other => panic!("wanted a ClientHello, got {other:?}"),
    }
}

/// The description of the alert that answers a flight, from a visitor that sends no more and does
/// not close.
fn refused<T: AsRef<[u8]>>(segments: &[T]) -> u8 {
    match read_from(segments, Then::Waits) {
        Some(Err(ReadError::Refused { alert, .. })) => alert.description(),
        other => panic!("wanted a refusal, got {other:?}"),
    }
}

/// Asserts that nothing is decided yet after these segments.
fn assert_undecided<T: AsRef<[u8]> + std::fmt::Debug>(segments: &[T]) {
    let outcome = read_from(segments, Then::Waits);
    assert!(outcome.is_none(), "decided {outcome:?} too early");
}

/// The first flight of a rustls client with its default, post-quantum key exchange.
fn rustls_hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = name.try_into().expect("a valid server name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a usable configuration");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("a Vec takes all");
    wire
}

/// The handshake message in a flight of one record.
fn message_in(wire: &[u8]) -> &[u8] {
    &wire[5..]
}

#[test]
fn a_post_quantum_client_is_understood() {
    let wire = rustls_hello("Abc.Tunnel.Example", &[b"h2", b"http/1.1"]);
    assert!(
        wire.len() > 1_200,
        "a hello of {} bytes can hold no ML-KEM key",
        wire.len()
    );

    let hello = accepted(&[&wire]);

    assert_eq!(hello.server_name.as_deref(), Some("abc.tunnel.example"));
    assert_eq!(hello.alpn, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.bytes, wire);
}

#[test]
fn every_proper_prefix_of_a_hello_is_undecided() {
    let wire = rustls_hello("abc.tunnel.example", &[]);
    for end in 0..wire.len() {
        assert_undecided(&[&wire[..end]]);
    }
}

#[test]
fn a_hello_may_arrive_in_any_two_segments() {
    let wire = rustls_hello("abc.tunnel.example", &[b"h2"]);
    for middle in 0..=wire.len() {
        let (first, second) = wire.split_at(middle);
        let hello = accepted(&[first, second]);
        assert_eq!(
            (hello.server_name.as_deref(), &hello.bytes[..]),
            (Some("abc.tunnel.example"), &wire[..])
        );
    }
}

#[test]
fn a_hello_may_arrive_byte_by_byte() {
    let wire = rustls_hello("abc.tunnel.example", &[]);
    let bytes: Vec<_> = wire.chunks(1).collect();
    assert_eq!(accepted(&bytes).bytes, wire);
}

#[test]
fn a_hello_may_be_cut_into_two_records_anywhere() {
    let whole = rustls_hello("abc.tunnel.example", &[]);
    let message = message_in(&whole);
    for cut in 1..message.len() {
        let wire = [record(&message[..cut]), record(&message[cut..])].concat();
        let hello = accepted(&[&wire]);
        assert_eq!(
            (hello.server_name.as_deref(), &hello.bytes[..]),
            (Some("abc.tunnel.example"), &wire[..]),
            "cut at {cut}"
        );
    }
}

#[test]
fn a_post_quantum_hello_may_come_in_records_of_one_byte_and_segments_of_one_byte() {
    let wire = records(message_in(&rustls_hello("abc.tunnel.example", &[])), 1);
    let bytes: Vec<_> = wire.chunks(1).collect();
    let hello = accepted(&bytes);
    assert_eq!(
        (hello.server_name.as_deref(), &hello.bytes[..]),
        (Some("abc.tunnel.example"), &wire[..])
    );
}

#[test]
fn early_data_behind_the_hello_is_kept_to_the_byte() {
    let hello = Hello::to("abc.tunnel.example").wire();
    let early_data: Vec<u8> = (0..=255).collect();
    let wire = [&hello[..], &[23, 3, 3, 1, 0], &early_data].concat();

    assert_eq!(accepted(&[&wire]).bytes, wire);
    // Half a record behind the hello does not delay the decision.
    assert_eq!(
        accepted(&[&wire[..hello.len() + 3]]).bytes,
        wire[..hello.len() + 3]
    );
}

#[test]
fn no_more_is_read_once_the_hello_is_complete() {
    let mut script = Script::new(
        &[&Hello::to("abc.tunnel.example").wire()[..], b"later"],
        Then::Waits,
    );
    let flight = poll_times(read(&mut script), 8)
        .expect("a decision")
        .expect("a ClientHello");
    assert!(matches!(flight, FirstFlight::Tls(_)));
    assert_eq!(script.unread(), 1);
}

#[test]
fn the_server_name_may_come_last_in_a_hello_of_up_to_16_kib() {
    for total in [4 * 1024, 8 * 1024, 12 * 1024, 15_872, MAX_MESSAGE] {
        let message = Hello::to("abc.tunnel.example").padded_to(total).message();
        assert_eq!(message.len(), total);
        for record_len in [512, 16 * 1024] {
            let wire = records(&message, record_len);
            let hello = accepted(&[&wire]);
            assert_eq!(
                (hello.server_name.as_deref(), hello.bytes.len()),
                (Some("abc.tunnel.example"), wire.len())
            );
        }
    }
}

#[test]
fn the_order_of_extensions_and_the_session_id_do_not_matter() {
    let hello = Hello::to("abc.tunnel.example").with_alpn(&[b"acme-tls/1"]);
    for session_id in [0, 1, 32] {
        for hello in [hello.clone(), hello.clone().reversed()] {
            let hello = accepted(&[hello.with_session_id(session_id).wire()]);
            assert_eq!(
                (hello.server_name.as_deref(), &hello.alpn[..]),
                (Some("abc.tunnel.example"), &[b"acme-tls/1".to_vec()][..])
            );
        }
    }
}

#[test]
fn grease_and_tls_1_2_are_ordinary() {
    let grease = Hello::to("a.example")
        .with(0x0a0a, vec![])
        .with(0x1a1a, vec![0]);
    let tls_1_2 = Hello::to("a.example")
        .without(extension::SUPPORTED_VERSIONS)
        .without(extension::KEY_SHARE);
    for hello in [grease, tls_1_2] {
        assert_eq!(
            accepted(&[hello.wire()]).server_name.as_deref(),
            Some("a.example")
        );
    }
}

#[test]
fn of_thousands_of_protocols_only_the_first_few_are_kept() {
    let hello = Hello::to("a.example").with(extension::ALPN, short_vec(&[1, b'x'].repeat(7_000)));
    assert_eq!(accepted(&[hello.wire()]).alpn, vec![b"x"; MAX_ALPN_NAMES]);
}

#[test]
fn a_message_over_16_kib_is_refused_at_its_header() {
    let header = |total: usize| message_of(1, &vec![0; total - 4])[..4].to_vec();
    assert_undecided(&[record(&[&header(MAX_MESSAGE)[..], &[3]].concat())]);
    assert_eq!(
        refused(&[&[&[22, 3, 1, 0x40, 0][..], &header(MAX_MESSAGE + 1)].concat()]),
        50
    );
    // The first byte of the length may say enough, in a record of its own.
    assert_eq!(refused(&[record(&[1]), record(&[255])]), 50);
}

#[test]
fn records_that_can_not_end_within_32_kib_are_refused_early() {
    // 16 KiB in records of 5 bytes are 32,770 bytes, in records of 6 bytes 30,040.
    let message = Hello::to("a.example").padded_to(MAX_MESSAGE).message();
    assert_eq!(
        accepted(&[records(&message, 6)]).server_name.as_deref(),
        Some("a.example")
    );

    let wire = records(&message, 5);
    assert_eq!(refused(&[&wire]), 50);
    let mut script = Script::new(&wire.chunks(1).collect::<Vec<_>>(), Then::Waits);
    poll_times(read(&mut script), 3 * wire.len())
        .expect("a decision")
        .expect_err("a refusal");
    // Up to here one long record could have held the rest. This header announces another short one.
    assert_eq!(wire.len() - script.unread(), 3_275 * 10 + 5);
}

#[test]
fn a_record_may_not_be_empty_or_over_16_kib() {
    let message = Hello::to("a.example").message();
    assert_eq!(refused(&[record(&[])]), 50);
    assert_eq!(
        refused(&[record(&message[..50]), record(&[]), record(&message[50..])]),
        50
    );
    assert_eq!(refused(&[[22, 3, 1, 0x40, 0x01]]), 50);
    assert_undecided(&[[22, 3, 1, 0x40, 0x00]]);
}

#[test]
fn a_wrong_byte_is_refused_when_it_comes() {
    let half = record(&Hello::to("a.example").message()[..50]);
    let cases: [(&str, Vec<u8>); 5] = [
        ("version 2 of the record layer", vec![22, 2]),
        ("a ServerHello", vec![22, 3, 3, 0, 100, 2]),
        (
            "an alert in the middle of the message",
            [&half[..], &[21]].concat(),
        ),
        (
            "application data in the middle of the message",
            [&half[..], &[23]].concat(),
        ),
        (
            "HTTP in the middle of the message",
            [&half[..], b"GET / HTTP/1.1\r\n\r\n"].concat(),
        ),
    ];
    for (what, wire) in cases {
        assert_eq!(refused(&[&wire]), 50, "{what}");
        let (last, before) = wire.split_last().expect("some bytes");
        assert_eq!(
            refused(&[before, &[*last]]),
            50,
            "{what}, the last byte late"
        );
    }
}

#[test]
fn lying_lengths_inside_the_message_are_decode_errors() {
    let hello = Hello::to("a.example");
    let message = hello.message();
    let extensions_at = 4 + 2 + 32 + 1 + 32 + 2 + 4 + 1 + 1;
    for at in [
        4 + 2 + 32,
        extensions_at - 7,
        extensions_at - 2,
        extensions_at,
        extensions_at + 1,
        extensions_at + 5,
    ] {
        for lie in [0xff, message[at].wrapping_add(1)] {
            let mut wire = record(&message);
            wire[5 + at] = lie;
            assert_eq!(refused(&[&wire]), 50, "{lie} at {at}");
        }
    }
    for end in 4..message.len() {
        // Without any extension it is a hello of SSL 3.0 times, which has no signature_algorithms:
        // handshake_failure.
        let expected = if end == extensions_at { 40 } else { 50 };
        assert_eq!(
            refused(&[record(&message_of(1, &message[4..end]))]),
            expected,
            "truncated to {end}, the length honest"
        );
    }
    assert_eq!(
        refused(&[record(&message_of(1, &[&message[4..], &[0]].concat()))]),
        50,
        "a byte too many"
    );
}

#[test]
fn what_rustls_refuses_gets_the_alert_of_rustls() {
    let hello = Hello::to("a.example");
    let cases = [
        (
            "a session id of 33 bytes",
            hello.clone().with_session_id(33),
            50,
        ),
        (
            "two server_name extensions",
            hello.clone().with_server_names(&[(0, b"a.example")]),
            50,
        ),
        (
            "two unknown extensions of one kind",
            hello.clone().with(0x4444, vec![]).with(0x4444, vec![]),
            50,
        ),
        (
            "no compression method",
            hello.clone().with_compressions(&[]),
            50,
        ),
        (
            "only compression methods that nobody has",
            hello.clone().with_compressions(&[1]),
            47,
        ),
        ("an empty ALPN list", hello.clone().with_alpn(&[]), 50),
        (
            "an empty ALPN name",
            hello.clone().with_alpn(&[b"h2", b""]),
            50,
        ),
        (
            "no signature_algorithms",
            hello.without(extension::SIGNATURE_ALGORITHMS),
            40,
        ),
    ];
    for (what, hello, alert) in cases {
        assert_eq!(refused(&[hello.wire()]), alert, "{what}");
    }
}

#[test]
fn handshake_bytes_behind_the_hello_in_its_record_are_unexpected() {
    let message = Hello::to("a.example").message();
    assert_eq!(refused(&[record(&[&message[..], &[1]].concat())]), 10);
    assert_eq!(refused(&[record(&[&message[..], &message].concat())]), 10);
    // In a record of their own they are the agent's business, who gets them with the hello.
    assert_eq!(
        accepted(&[[record(&message), record(&message)].concat()])
            .server_name
            .as_deref(),
        Some("a.example")
    );
}

#[test]
fn other_protocols_are_refused_at_once() {
    let cases: [(&str, &[u8]); 8] = [
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
        (
            "SSLv2 hello",
            &[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 16, 1, 0, 0x80],
        ),
        ("alert record", &[21, 3, 1, 0, 2, 2, 40]),
        ("application data record", &[23, 3, 3, 0, 1, 0]),
        ("noise", &[0xde, 0xad, 0xbe, 0xef]),
        ("one NUL", &[0]),
        ("SMTP", b"EHLO example.com\r\n"),
        ("a method in lower case", b"get / HTTP/1.1\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        assert_eq!(refused(&[bytes]), 50, "{what}");
    }
    assert_eq!(
        refused(&[&b"GE"[..], b"X"]),
        50,
        "a method that turns out to be none"
    );
    assert_eq!(
        refused(&[b"GETS / HTTP/1.1\r\n\r\n"]),
        50,
        "a method with a letter too many"
    );
}

#[test]
fn a_plain_http_head_is_read_to_its_end_however_it_is_cut() {
    for method in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI",
    ] {
        for line_end in ["\r\n", "\n"] {
            let head = format!("{method} / HTTP/1.1{line_end}Host: a.example{line_end}{line_end}");
            for end in 0..head.len() {
                assert_undecided(&[&head[..end]]);
                let Some(Ok(FirstFlight::Http(bytes))) =
                    read_from(&[&head[..end], &head[end..]], Then::Waits)
                else {
                    panic!("{head:?} cut at {end} is no HTTP head");
                };
                assert_eq!(bytes, head);
            }
        }
    }
}

#[test]
fn an_endless_http_head_is_given_up_at_8_kib() {
    let head = [&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 9_000]].concat();
    assert_undecided(&[&head[..MAX_HTTP_HEAD - 1]]);
    let mut script = Script::new(&head.chunks(1_000).collect::<Vec<_>>(), Then::Waits);
    let flight = poll_times(read(&mut script), 100).expect("a decision");
    let Ok(FirstFlight::Http(bytes)) = flight else {
        panic!("wanted HTTP, got {flight:?}")
    };
    assert_eq!(bytes, head[..MAX_HTTP_HEAD]);
}

#[test]
fn a_visitor_that_closes_early_is_nobodys_fault() {
    let hello = Hello::to("a.example").wire();
    for sent in [
        &b""[..],
        b"GE",
        b"GET / HTTP/1.1\r\n",
        &hello[..1],
        &hello[..hello.len() - 1],
    ] {
        let outcome = read_from(&[sent], Then::Closes);
        assert!(
            matches!(outcome, Some(Err(ReadError::Closed))),
            "{outcome:?} after {} bytes",
            sent.len()
        );
    }
}

#[test]
fn a_broken_connection_is_told_from_a_closed_one() {
    let outcome = read_from(&[b"\x16"], Then::Resets);
    let Some(Err(ReadError::Io(error))) = outcome else {
        panic!("wanted an I/O error, got {outcome:?}")
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_silent_visitor_costs_no_buffer() {
    let mut buffer = Buffer::default();
    let outcome = poll_times(buffer.fill(&mut Script::new::<&[u8]>(&[], Then::Waits)), 5);
    assert!(outcome.is_none());
    assert_eq!(buffer.bytes.capacity(), 0);
}

#[test]
fn the_buffer_doubles_from_2_to_32_kib_and_no_further() {
    let mut script = Script::new(&[vec![0; MAX_WIRE]], Then::Waits);
    let mut buffer = Buffer::default();
    let mut capacities = Vec::new();
    while buffer.bytes.len() < MAX_WIRE {
        poll_times(buffer.fill(&mut script), 2)
            .expect("more bytes")
            .expect("no error");
        capacities.push(buffer.bytes.capacity());
    }
    assert_eq!(capacities, [2_048, 4_096, 8_192, 16_384, 32_768]);
    buffer.make_room();
    assert_eq!(buffer.bytes.capacity(), MAX_WIRE);
}

#[test]
fn a_refusal_says_in_the_log_what_was_wrong_but_not_which_name_was_asked_for() {
    let hello = Hello::to("a.example").with_server_names(&[(0, b"secret.example")]);
    let Some(Err(error)) = read_from(&[hello.wire()], Then::Waits) else {
        panic!("wanted a refusal")
    };
    let source = std::error::Error::source(&error)
        .expect("a reason")
        .to_string();
    assert_eq!(error.to_string(), "refused with alert 50");
    assert!(
        source.contains("DuplicateExtension") && !source.contains("secret"),
        "{source}"
    );
}
