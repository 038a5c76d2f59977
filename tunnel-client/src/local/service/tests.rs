use super::*;

fn parse(text: &str) -> Result<LocalService, BadLocalService> {
    text.parse()
}

#[test]
fn every_form_of_a_local_service_is_understood() {
    let cases = [
        ("3000", "127.0.0.1:3000"),
        ("localhost:80", "localhost:80"),
        ("my_service:8080", "my_service:8080"),
        ("192.0.2.7:1", "192.0.2.7:1"),
        ("[::1]:80", "[::1]:80"),
        ("http://localhost", "localhost:80"),
        ("http://localhost/", "localhost:80"),
        ("HTTP://localhost:3000", "localhost:3000"),
        ("http://[::1]", "[::1]:80"),
        ("https://nas.lan", "https://nas.lan:443"),
        ("https://nas.lan:8443/", "https://nas.lan:8443"),
        ("Https://192.0.2.7", "https://192.0.2.7:443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("unix:/run/web.sock", "unix:/run/web.sock"),
        ("unix:web.sock", "unix:web.sock"),
        ("unix:./@odd", "unix:./@odd"),
        ("unix:@abstract", "unix:@abstract"),
    ];
    for (text, shown) in cases {
        let service = parse(text).expect(text);
        assert_eq!(service.to_string(), shown);
        assert_eq!(parse(shown).as_ref(), Ok(&service), "{shown}");
        assert_eq!(service.is_https(), shown.starts_with("https:"), "{text}");
    }
}

#[test]
fn what_is_no_local_service_is_refused_with_the_reason() {
    use BadLocalService::{Form, Path, Scheme, Unix, UserInfo};
    let cases = [
        ("", Form),
        ("0", Form),
        ("65536", Form),
        ("localhost", Form),
        (":80", Form),
        ("host:0", Form),
        ("host:http", Form),
        ("::1", Form),
        ("::1:80", Form),
        ("[::1]", Form),
        ("[localhost]:80", Form),
        ("a b:80", Form),
        ("http:localhost", Form),
        ("http://", Form),
        ("http://:80", Form),
        ("http://host:0", Form),
        ("http://host:65536", Form),
        ("https://::1", Form),
        ("https://a b", Form),
        ("ftp://host", Scheme),
        ("ws://host:1", Scheme),
        ("://host", Scheme),
        ("https://user@host", UserInfo),
        ("https://user:secret@host:1", UserInfo),
        ("http://host/path", Path),
        ("http://host//", Path),
        ("http://host/?", Path),
        ("http://host?query", Path),
        ("https://host:1#part", Path),
        ("unix:", Unix),
        ("unix:@", Unix),
        ("unix:a\0b", Unix),
    ];
    for (text, why) in cases {
        assert_eq!(parse(text), Err(why), "{text:?}");
    }
}

#[test]
fn the_path_of_a_unix_socket_fits_a_sockets_address() {
    for prefix in ["unix:", "unix:@"] {
        let longest = format!("{prefix}{}", "n".repeat(107));
        assert!(parse(&longest).is_ok(), "{prefix}");
        assert_eq!(parse(&(longest + "n")), Err(BadLocalService::Unix));
    }
}

#[test]
fn only_a_service_with_tls_has_a_rule_of_trust() {
    let with = |text| parse(text).expect(text).with_trust(LocalTrust::Anything);
    assert_eq!(parse("3000"), Ok(with("3000")));
    assert_ne!(parse("https://nas.lan"), Ok(with("https://nas.lan")));
}
