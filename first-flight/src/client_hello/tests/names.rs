//! Which server names rustls accepts, and with which alert it answers the others.
//!
//! The table is a record of facts about rustls 0.23: if an update changes a row, the routing rules
//! need another look.

use super::builder::{Hello, extension};
use super::{accepted, refused};

/// The hello with a server_name extension of these (name type, name) pairs.
fn asking_for(names: &[(u8, &[u8])]) -> Vec<u8> {
    Hello::anonymous().with_server_names(names).wire()
}

/// A name of `len` bytes in labels of 63.
fn long_name(len: usize) -> Vec<u8> {
    let mut name = [[b'a'; 63].as_slice(), b"."].concat().repeat(5);
    name.truncate(len);
    name
}

#[test]
fn a_valid_name_is_given_in_lower_case_and_otherwise_as_it_came() {
    let cases: [(&[u8], &str); 6] = [
        (b"Abc.Example.COM", "abc.example.com"),
        (b"abc.example.com.", "abc.example.com."),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"_acme_.example", "_acme_.example"),
        (b"localhost", "localhost"),
        (b"1.2.3.4.example", "1.2.3.4.example"),
    ];
    for (sent, given) in cases {
        assert_eq!(
            accepted(&[asking_for(&[(0, sent)])]).server_name.as_deref(),
            Some(given)
        );
    }
}

#[test]
fn the_longest_name_has_253_bytes_and_the_longest_label_63() {
    let longest = long_name(253);
    let name = accepted(&[asking_for(&[(0, &longest)])])
        .server_name
        .expect("a name");
    assert_eq!(name.as_bytes(), longest);
    for too_long in [254, 255, 256] {
        assert_eq!(
            refused(&[asking_for(&[(0, &long_name(too_long))])]),
            47,
            "{too_long} bytes"
        );
    }
    assert_eq!(
        refused(&[asking_for(&[(0, &[b'a'; 64])])]),
        47,
        "a label of 64 bytes"
    );
}

#[test]
fn no_name_and_an_ip_address_look_alike() {
    assert_eq!(accepted(&[Hello::anonymous().wire()]).server_name, None);
    for literal in ["127.0.0.1", "::1", "2001:db8::1"] {
        assert_eq!(
            accepted(&[asking_for(&[(0, literal.as_bytes())])]).server_name,
            None,
            "{literal}"
        );
    }
}

#[test]
fn what_is_no_host_name_is_an_illegal_parameter() {
    let cases: [&[u8]; 17] = [
        "bücher.example".as_bytes(),
        b"\xff\xfe.example",
        b"a\0b.example",
        b"a.example\0",
        b"a\r\nb.example",
        b"a\x1b[31m.example",
        b"a b.example",
        b"*.example",
        b"a.example:443",
        b"a..example",
        b"a.example..",
        b".",
        b"-a.example",
        b"a-.example",
        b"1.2.3",
        b"127.0.0.1.",
        b"[::1]",
    ];
    for name in cases {
        assert_eq!(
            refused(&[asking_for(&[(0, name)])]),
            47,
            "{}",
            name.escape_ascii()
        );
    }
}

#[test]
fn a_list_without_exactly_one_host_name_is_refused() {
    let name = b"a.example".as_slice();
    assert_eq!(refused(&[asking_for(&[])]), 50, "an empty list");
    assert_eq!(refused(&[asking_for(&[(0, b"")])]), 50, "an empty name");
    assert_eq!(
        refused(&[asking_for(&[(0, name), (0, b"b.example")])]),
        50,
        "two names"
    );
    assert_eq!(
        refused(&[asking_for(&[(0, name), (0, name)])]),
        50,
        "one name twice"
    );
    assert_eq!(
        refused(&[asking_for(&[(1, name)])]),
        47,
        "only another type of name"
    );
    assert_eq!(
        refused(&[asking_for(&[(1, name), (0, name)])]),
        47,
        "another type of name first"
    );
}

#[test]
fn a_name_of_another_type_behind_the_host_name_is_ignored() {
    let wire = asking_for(&[(0, b"a.example"), (1, b"b.example")]);
    assert_eq!(accepted(&[wire]).server_name.as_deref(), Some("a.example"));
}

#[test]
fn lying_lengths_in_the_extension_are_decode_errors() {
    let bodies: [&[u8]; 4] = [
        &[],
        &[0, 20, 0, 0, 3, b'a', b'.', b'b'],
        &[0, 4, 0, 0, 3, b'a', b'.', b'b'],
        &[0, 6, 0, 0, 3, b'a', b'.', b'b', 9],
    ];
    for body in bodies {
        assert_eq!(
            refused(&[Hello::anonymous()
                .with(extension::SERVER_NAME, body.to_vec())
                .wire()]),
            50,
            "{body:?}"
        );
    }
}
