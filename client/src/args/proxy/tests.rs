use std::collections::HashMap;
use std::fs;

use clap::Parser as _;
use tunnel_common::private_file;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    proxy: Proxy,
}

/// What these flags mean among these variables: the proxy, and the mistakes.
fn chosen(
    folder: &tempfile::TempDir,
    flags: &str,
    variables: &[(&str, &str)],
) -> (Option<OutboundProxy>, Vec<String>) {
    let line = ["client"].into_iter().chain(flags.split_whitespace());
    let line = Line::try_parse_from(line).expect("parses whatever it says");
    assert!(!format!("{line:?}").contains("sesame"), "{line:?}");
    let relay: RelayAddr = "relay.example".parse().expect("a relay");
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| variables.get(name).map(OsString::from);
    let data = DataDir::new(folder.path());
    let mut mistakes = vec![];
    let relays = [relay];
    let (proxies, elsewhere) = line.proxy.chosen(&relays, &data, variable, &mut mistakes);
    let [proxy] = proxies.try_into().expect("one for each relay");
    if mistakes.is_empty() {
        let found = elsewhere.towards(&relays[0]).expect("no mistake");
        assert_eq!(found, proxy, "by one rule");
    }
    for told in &mistakes {
        assert!(!told.contains("sesame"), "{told}");
    }
    (proxy, mistakes)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("credentials");
    private_file::create(&file, b"file:sesame\n").expect("creates");
    folder
}

fn proxy(url: &str) -> Option<OutboundProxy> {
    Some(url.parse().expect("a proxy"))
}

/// The only mistake in these flags among these variables.
fn mistake(flags: &str, variables: &[(&str, &str)]) -> String {
    let (_, mut mistakes) = chosen(&folder(), flags, variables);
    assert_eq!(mistakes.len(), 1, "{flags}: {mistakes:?}");
    mistakes.swap_remove(0)
}

#[test]
fn the_flag_comes_before_the_environment_and_none_is_none() {
    let folder = folder();
    let environment = [("https_proxy", "http://environment:1"), ("no_proxy", "*")];
    let (found, _) = chosen(&folder, "--proxy socks5h://flag", &environment);
    assert_eq!(found, proxy("socks5h://flag:1080"));
    let (found, _) = chosen(&folder, "", &environment[..1]);
    assert_eq!(found, proxy("http://environment:1"));
    for flags in ["", "--proxy none"] {
        assert_eq!(chosen(&folder, flags, &environment), (None, vec![]));
    }
    let nothing = chosen(&folder, "--proxy none", &environment[..1]);
    assert_eq!(nothing, (None, vec![]));
}

#[test]
fn credentials_are_the_files_then_the_variables_then_the_urls() {
    let (folder, url) = (folder(), ("all_proxy", "http://url:sesame@p:1"));
    let variable = ("QTUN_PROXY_CREDENTIALS", "variable:sesame");
    let cases = [
        ("--proxy-credentials credentials", "http://file:sesame@p:1"),
        ("", "http://variable:sesame@p:1"),
    ];
    for (flags, wanted) in cases {
        let found = chosen(&folder, flags, &[url, variable]);
        assert_eq!(found, (proxy(wanted), vec![]), "{flags}");
    }
    assert_eq!(chosen(&folder, "", &[url]).0, proxy(url.1));
    let found = chosen(&folder, "--proxy http://p:1", &[variable]);
    assert_eq!(found, (proxy("http://variable:sesame@p:1"), vec![]));
}

#[test]
fn a_password_in_the_flag_is_a_mistake_that_says_what_to_do_instead() {
    let told = mistake("--proxy http://aladdin:sesame@p:1", &[]);
    for word in ["--proxy-credentials", "QTUN_PROXY_CREDENTIALS", "everybody"] {
        assert!(told.contains(word), "{told}");
    }
    // Nor is it told where the URL is wrong besides.
    for url in [
        "ftp://a:sesame@p:1",
        "http://a:sesame@p",
        "a:sesame@p/x",
        "a:sesame@p:x",
    ] {
        mistake(&format!("--proxy {url}"), &[]);
    }
}

#[test]
fn what_makes_no_sense_is_a_mistake_by_its_flag_or_variable() {
    let told = mistake("--proxy https://p:1", &[]);
    assert!(
        told.starts_with("--proxy: ") && told.contains("socks5h://"),
        "{told}"
    );
    let told = mistake("", &[("HTTPS_PROXY", "http://aladdin:sesame@")]);
    assert!(told.contains("HTTPS_PROXY"), "{told}");
    let told = mistake("", &[("QTUN_PROXY_CREDENTIALS", "sesame")]);
    assert!(told.contains("QTUN_PROXY_CREDENTIALS"), "{told}");
    let told = mistake("--proxy http://p:1 --proxy-credentials missing", &[]);
    assert!(told.starts_with("--proxy-credentials: "), "{told}");
    let told = mistake("--proxy none --proxy-credentials credentials", &[]);
    assert!(told.contains("--proxy none"), "{told}");
    let empty = ("QTUN_PROXY_CREDENTIALS", "aladdin:");
    let told = mistake("--proxy socks5://p", &[empty]);
    assert!(told.contains("empty password"), "{told}");
}

#[test]
fn a_file_of_credentials_may_wait_for_a_proxy_and_is_looked_at_all_the_same() {
    let folder = folder();
    let exempt = [("all_proxy", "http://p:1"), ("no_proxy", "relay.example")];
    let flags = "--proxy-credentials credentials";
    assert_eq!(chosen(&folder, flags, &exempt), (None, vec![]));
    fs::remove_file(folder.path().join("credentials")).expect("is there");
    let (_, mistakes) = chosen(&folder, flags, &exempt);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
}

#[test]
fn other_hosts_are_reached_by_the_rules_that_hold_for_relays() {
    let other: RelayAddr = "other.example:443".parse().expect("a host");
    let towards = |flags: &str, variables: &[(&str, &str)]| {
        let line = ["client"].into_iter().chain(flags.split_whitespace());
        let line = Line::try_parse_from(line).expect("parses");
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(OsString::from);
        let (data, mut mistakes) = (DataDir::new("."), vec![]);
        let (_, elsewhere) = line.proxy.chosen(&[], &data, variable, &mut mistakes);
        elsewhere.towards(&other).map_err(|error| error.to_string())
    };
    let named = ("all_proxy", "http://url:sesame@p:1");
    assert_eq!(towards("", &[]), Ok(None));
    assert_eq!(towards("", &[named]), Ok(proxy(named.1)));
    assert_eq!(
        towards("", &[named, ("no_proxy", "other.example")]),
        Ok(None)
    );
    assert_eq!(towards("--proxy none", &[named]), Ok(None));
    let variable = ("QTUN_PROXY_CREDENTIALS", "variable:sesame");
    let found = towards("--proxy http://q:1", &[named, variable]);
    assert_eq!(found, Ok(proxy("http://variable:sesame@q:1")));
    let wrong = towards("", &[("all_proxy", "ftp://p:1")]).expect_err("no way around");
    assert!(wrong.contains("all_proxy"), "{wrong}");
}
