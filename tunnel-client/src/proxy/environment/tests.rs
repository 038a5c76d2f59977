use std::os::unix::ffi::OsStringExt as _;

use super::*;

fn found(relay: &str, variables: &[(&str, &str)]) -> Result<Option<String>, BadVariable> {
    let relay = relay.parse().expect("a relay");
    let proxy = proxy(&relay, |name| {
        let set = variables.iter().find(|(set, _)| *set == name);
        set.map(|(_, value)| value.into())
    })?;
    Ok(proxy.map(|proxy| proxy.to_string()))
}

#[test]
fn the_variables_are_asked_in_curls_order_and_an_empty_one_is_not_set() {
    let all = [
        ("https_proxy", "http://a:1"),
        ("HTTPS_PROXY", "http://b:1"),
        ("all_proxy", "socks5://c:1"),
        ("ALL_PROXY", "socks5h://d:1"),
    ];
    for skip in 0..all.len() {
        let mut set = all.to_vec();
        for (_, value) in &mut set[..skip] {
            *value = "";
        }
        let wanted = Some(all[skip].1.to_owned());
        assert_eq!(found("relay", &set), Ok(wanted.clone()));
        assert_eq!(found("relay", &all[skip..]), Ok(wanted));
    }
    let others = [("HTTP_PROXY", "http://x:1"), ("http_proxy", "http://x:1")];
    assert_eq!(found("relay", &others), Ok(None));
}

#[test]
fn the_hosts_in_no_proxy_are_reached_without() {
    let cases = [
        ("relay.example.com", "relay.example.com", true),
        ("relay.example.com", "RELAY.example.COM", true),
        ("relay.example.com:99", "a.b, example.com", true),
        ("relay.example.com", ".example.com", true),
        ("relay.example.com", "a.b example.com\tc", true),
        ("relay.example.com", "ample.com", false),
        ("relay.example.com", "www.relay.example.com", false),
        ("relay.example.com", ",, ,", false),
        ("relay.example.com", "*", true),
        ("10.1.2.3", "10.0.0.0/8", true),
        ("11.1.2.3", "10.0.0.0/8", false),
        ("10.1.2.3:99", "10.1.2.3", true),
        ("10.1.2.3", "2.3", false),
        ("[2001:db8::1]", "2001:db8::/32", true),
        ("[2001:db8::1]:99", "2001:DB8:0::1", true),
        ("[2001:db9::1]", "2001:db8::/32", false),
        ("localhost", "localhost,127.0.0.1", true),
        ("127.0.0.1", "localhost", false),
    ];
    for (relay, list, exempt) in cases {
        let set = [("all_proxy", "http://p:1"), ("NO_PROXY", list)];
        let proxy = found(relay, &set).expect("can be used");
        assert_eq!(proxy.is_none(), exempt, "{relay} {list:?}");
    }
    let both = [
        ("all_proxy", "http://p:1"),
        ("no_proxy", "x"),
        ("NO_PROXY", "relay"),
    ];
    assert!(found("relay", &both).expect("can be used").is_some());
}

#[test]
fn a_variable_that_can_not_be_used_is_an_error_and_not_passed_by() {
    for bad in [
        "https://aladdin:sesame@p:1",
        "http://aladdin:sesame@p",
        "sesame\n",
    ] {
        let set = [("HTTPS_PROXY", bad), ("ALL_PROXY", "http://p:1")];
        let error = found("relay", &set).expect_err("is wrong").to_string();
        assert!(error.contains("HTTPS_PROXY"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
    let relay = "relay".parse().expect("a relay");
    let bytes = |name: &str| (name == "all_proxy").then(|| OsString::from_vec(vec![0xff]));
    assert_eq!(proxy(&relay, bytes), Err(BadVariable::NotText("all_proxy")));
}

#[test]
fn credentials_of_the_variable_are_taken_as_they_are() {
    let of = |text: &'static str| credentials(move |name| (name == VARIABLE).then(|| text.into()));
    let plain = Credentials::new("user", "a%40:b").expect("credentials");
    assert_eq!(of("user:a%40:b"), Ok(Some(plain)));
    assert_eq!(of(""), Ok(None));
    let error = of("sesame").expect_err("no colon").to_string();
    assert!(error.contains(VARIABLE), "{error}");
    assert!(!error.contains("sesame"), "{error}");
}
