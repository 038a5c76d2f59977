use proptest::prelude::*;
use tokio::io::{AsyncWriteExt as _, duplex};

use super::*;

/// More than either protocol has to say to anybody.
const PIPE_BYTES: usize = 4096;

fn parse(text: &str) -> Result<OutboundProxy, BadProxy> {
    text.parse()
}

#[test]
fn a_proxy_is_a_url_and_without_a_scheme_it_speaks_http() {
    let cases = [
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("HTTP://proxy.corp:3128/", "http://proxy.corp:3128"),
        ("proxy.corp:3128", "http://proxy.corp:3128"),
        ("10.0.0.1:80/", "http://10.0.0.1:80"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("socks5://proxy", "socks5://proxy:1080"),
        ("socks5h://[fe80::1]", "socks5h://[fe80::1]:1080"),
        ("socks5h://proxy:9", "socks5h://proxy:9"),
    ];
    for (text, shown) in cases {
        let shows = parse(text).map(|proxy| proxy.to_string());
        assert_eq!(shows, Ok(shown.to_owned()), "{text}");
    }
    assert!(!parse("socks5://p").expect("a proxy").resolves());
    for text in ["socks5h://p", "http://p:1"] {
        assert!(parse(text).expect("a proxy").resolves());
    }
}

#[test]
fn what_is_no_proxy_says_why() {
    for scheme in ["https", "socks", "socks4", "socks4a", "ftp", "quic"] {
        let error = parse(&format!("{scheme}://p:1")).expect_err("is not supported");
        assert_eq!(error, BadProxy::Scheme(scheme.to_owned()));
        for supported in ["http://", "socks5://", "socks5h://", "none"] {
            assert!(error.to_string().contains(supported), "{error}");
        }
    }
    for text in [
        "",
        "http://",
        "http://:80",
        "http://p:0",
        "http://p:65536",
        "http://p:x",
        "http://p:",
        "http://a b:1",
        "http://::1:80",
        "://p:1",
        "http://@:1",
        "socks5://",
        "a:sesame://p:1",
    ] {
        assert_eq!(parse(text), Err(BadProxy::Form), "{text:?}");
    }
    for text in ["http://p", "p", "http://u:w@p"] {
        assert_eq!(parse(text), Err(BadProxy::NoPort), "{text:?}");
    }
    for text in [
        "http://p:1/x",
        "http://p:1?x",
        "http://u:a/b@p:1",
        "http://u:a#b@p:1",
    ] {
        assert_eq!(parse(text), Err(BadProxy::Behind), "{text:?}");
    }
    assert_eq!(parse("http://u:%ff@p:1"), Err(BadProxy::NotText));
    assert_eq!(parse("socks5://u@p:1"), Err(BadProxy::EmptyPassword));
    let control = BadProxy::Credentials(BadCredentials::ControlCharacter);
    assert_eq!(parse("http://u:%0d%0aX:%20y@p:1"), Err(control));
}

#[test]
fn credentials_of_a_url_are_percent_decoded() {
    let cases = [
        ("aladdin:sesame", "aladdin", "sesame"),
        ("aladdin", "aladdin", ""),
        ("al%61ddin:%40%2F%3a%C3%A9%25", "aladdin", "@/:\u{e9}%"),
        ("aladdin:a:b", "aladdin", "a:b"),
        ("corp%5Cuser:p@ss", "corp\\user", "p@ss"),
        ("user:100%", "user", "100%"),
    ];
    for (user_info, user, password) in cases {
        let proxy = parse(&format!("http://{user_info}@p:1")).expect("a proxy");
        let wanted = Credentials::new(user, password).expect("credentials");
        assert_eq!(proxy.credentials, Some(wanted), "{user_info}");
    }
}

#[test]
fn neither_a_proxy_nor_an_error_shows_a_password() {
    let proxy = parse("http://aladdin:sesame@p:1").expect("a proxy");
    assert!(proxy.has_credentials());
    for shown in [format!("{proxy}"), format!("{proxy:?}")] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
    for text in [
        "sesame://p:1",
        "aladdin:sesame://p:1",
        "http://aladdin:sesame@p",
        "ftp://a:sesame@p:1",
        "http://aladdin:sesame@p:1/x",
        "http://aladdin:sesame/x@p:1",
        "http://aladdin:sesame@:1",
        "http://aladdin:sesame%ff@p:1",
        "http://aladdin:sesame%00@p:1",
        "http://:sesame@p:1",
    ] {
        let error = parse(text).expect_err("is wrong");
        // What stands where a scheme should is told as one.
        let is_scheme = text.starts_with("sesame");
        assert_eq!(error.to_string().contains("sesame"), is_scheme, "{error}");
    }
}

/// Asks a proxy that says these bytes, whatever it is asked, and ends.
async fn answered(url: &str, bytes: &[u8]) -> Result<(), ProxyError> {
    let (mut ours, mut proxys) = duplex(PIPE_BYTES);
    proxys.write_all(bytes).await.expect("takes them");
    proxys.shutdown().await.expect("ends");
    let target = Target::new("relay.example", 443);
    parse(url)
        .expect("a proxy")
        .connect(&mut ours, &target)
        .await
}

proptest! {
    #[test]
    fn no_answer_makes_a_dial_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (http, socks) = ([b"HTTP/1.1 ", &bytes[..]].concat(), [b"\x05\x00", &bytes[..]].concat());
        let login = [b"\x05\x02", &bytes[..]].concat();
        for (url, bytes) in [
            ("http://p:1", &bytes), ("http://p:1", &http), ("socks5://p", &bytes),
            ("socks5h://p", &socks), ("socks5h://u:w@p", &login),
        ] {
            // Either way is right: that there is an end is what counts.
            let _ = runtime.block_on(answered(url, bytes));
        }
    }

    #[test]
    fn no_text_makes_parsing_panic_and_what_is_shown_is_read_again(text in "(http://|socks5://)?[a-z:@/%.\\[\\]0-9]{0,20}") {
        if let Ok(proxy) = parse(&text) {
            let again = parse(&proxy.to_string()).expect("a proxy");
            prop_assert_eq!(again.to_string(), proxy.to_string());
        }
    }
}
