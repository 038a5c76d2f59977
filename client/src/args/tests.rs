//! What the flags come to.

use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::local::LocalService;
use tunnel_client::local::proxy_protocol::ProxyProtocol;
use tunnel_client::local::trust::{Listed, LocalTrust};
use tunnel_client::tls_mode::TlsMode;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key;

use super::*;

fn parse(folder: &tempfile::TempDir, flags: &str) -> Result<Config, Mistakes> {
    parse_among(folder, flags, |_| None)
}

/// What these flags mean among the variables that this finds.
fn parse_among(
    folder: &tempfile::TempDir,
    flags: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Mistakes> {
    let data_dir = [
        "client",
        "--data-dir",
        folder.path().to_str().expect("UTF-8"),
    ];
    let args = data_dir.into_iter().chain(flags.split_whitespace());
    let args = Args::try_parse_from(args).expect("parses");
    match args.into_command(variable)? {
        Command::Publish { config, .. } => Ok(*config),
        #[cfg(feature = "demo")]
        Command::Demo => panic!("the demo was not asked for"),
        Command::Verify(_) => panic!("no question was asked"),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_server_is_enough() {
    let config = parse(&folder(), "--server 127.0.0.1:4433").expect("is complete");
    assert_eq!(config.relays[0].address.to_string(), "127.0.0.1:4433");
    assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:3000");
    assert_eq!(config.endpoint.alpn, [b"http/1.1"]);
    assert_eq!(config.relays[0].trust, RelayTrust::FirstUse);
}

#[test]
fn flags_reach_the_configuration() {
    let pin = KeyFingerprint::of_spki(b"a key");
    let flags = format!(
        "--server relay.example --server-fingerprint {pin} --local 8080 --domain-suffix a.example \
         --alpn h2,http/1.1 --memory-budget 7 --congestion cubic --drain-grace 9"
    );
    let config = parse(&folder(), &flags).expect("is complete");
    assert_eq!(config.relays[0].address.to_string(), "relay.example:4433");
    assert_eq!(config.relays[0].trust, RelayTrust::Pinned(pin));
    assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:8080");
    assert_eq!(config.endpoint.alpn, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(config.endpoint.suffix, "a.example".parse().ok());
    assert_eq!(config.memory_budget, 7 << 20);
    assert_eq!(config.congestion, Congestion::Cubic);
    assert_eq!(config.timeouts.drain_grace.as_secs(), 9);
}

#[test]
fn a_proxy_reaches_the_configuration_and_a_bad_one_is_a_mistake_among_others() {
    let proxy = |flags, variable| {
        let flags = format!("--server x {flags}");
        let named = |name: &str| (name == "all_proxy").then(|| OsString::from(variable));
        parse_among(&folder(), &flags, named).map(|mut config| config.relays.swap_remove(0).proxy)
    };
    let found = proxy("", "http://p:1").expect("is complete");
    assert_eq!(found, "http://p:1".parse().ok());
    let found = proxy("--proxy socks5://q", "http://p:1").expect("is complete");
    assert_eq!(found, "socks5://q".parse().ok());
    let mistakes = proxy("--server-ca /nowhere/ca.pem", "ftp://p:1").expect_err("is wrong");
    let mistakes = mistakes.to_string();
    assert!(
        mistakes.contains("--server-ca") && mistakes.contains("all_proxy"),
        "{mistakes}"
    );
}

/// The lines of the mistakes in these flags.
fn mistakes(flags: &str) -> Vec<String> {
    let flags = format!("--server x {flags}");
    let mistakes = parse(&folder(), &flags).expect_err("is wrong");
    mistakes.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn flags_of_the_local_service_reach_the_configuration() {
    let folder = folder();
    let file = folder.path().join("ca.pem");
    let certificate = rcgen::generate_simple_self_signed(["nas.lan".to_owned()]);
    std::fs::write(&file, certificate.expect("signs").cert.pem()).expect("writes");
    let flags = format!(
        "--server x --local https://nas.lan --local-ca {} --proxy-protocol v2",
        file.display()
    );
    let config = parse(&folder, &flags).expect("is complete");
    let listed = LocalTrust::Listed(Listed::from_pem_file(&file).expect("one"));
    let nas: LocalService = "https://nas.lan".parse().expect("a service");
    assert_eq!(config.endpoint.local, nas.clone().with_trust(listed));
    assert_eq!(config.endpoint.proxy_protocol, Some(ProxyProtocol::V2));
    assert_eq!(config.endpoint.tls, TlsMode::Terminate);

    let flags = "--server x --local https://nas.lan --local-insecure";
    let config = parse(&folder, flags).expect("is complete");
    let anything = nas.clone().with_trust(LocalTrust::Anything);
    assert_eq!(config.endpoint.local, anything);
    let config = parse(&folder, "--server x --local https://nas.lan").expect("is complete");
    assert_eq!(config.endpoint.local, nas);
    let config = parse(&folder, "--server x --tls passthrough").expect("is complete");
    assert_eq!(config.endpoint.tls, TlsMode::Passthrough);
}

#[test]
fn mistakes_about_the_local_service_are_told_all_at_once() {
    let all = mistakes(
        "--local https://nas.lan --local-ca /nowhere/ca.pem --local-insecure \
         --tls passthrough --alpn h2",
    );
    let about = ["--alpn: ", "--local-ca, ", "--local-ca: /nowhere", "--tls "];
    assert_eq!(all.len(), about.len(), "{all:?}");
    for (line, about) in all.iter().zip(about) {
        assert!(line.starts_with(about), "{line} {about}");
    }
    for flag in ["--local-insecure", "--local-ca /nowhere/ca.pem"] {
        for local in ["3000", "unix:x", "http://x"] {
            let all = mistakes(&format!("--local {local} {flag}"));
            assert!(all[0].contains("no https:// service"), "{all:?}");
        }
    }
}

#[test]
fn the_key_stays_the_same_and_a_corrupt_one_is_a_mistake() {
    let folder = folder();
    let id = |folder| {
        let config = parse(folder, "--server x").expect("is complete");
        key::fingerprint(&config.endpoint.key)
    };
    assert_eq!(id(&folder), id(&folder));
    std::fs::write(folder.path().join("client.key"), "rubbish").expect("writes");
    let mistakes = parse(&folder, "--server x")
        .expect_err("is corrupt")
        .to_string();
    assert!(mistakes.contains("client.key"), "{mistakes}");
}

#[test]
fn a_server_is_needed_unless_it_is_the_demo() {
    assert!(Args::try_parse_from(["client", "--local", "80"]).is_err());
    assert!(Args::try_parse_from(["client"]).is_err());
    #[cfg(feature = "demo")]
    assert!(matches!(
        Args::try_parse_from(["client", "demo"])
            .expect("parses")
            .into_command(|_| None),
        Ok(Command::Demo)
    ));
}

#[test]
fn a_second_identity_has_a_key_and_perhaps_a_local_service_of_its_own() {
    let folder = folder();
    let config = parse(&folder, "--server x --secondary-key second.key").expect("is complete");
    let second = config.second.expect("a second endpoint");
    assert_eq!(second.name.as_str(), "secondary");
    assert_eq!(second.local, config.endpoint.local);
    let ids = [&config.endpoint.key, &second.key].map(key::fingerprint);
    assert_ne!(ids[0], ids[1]);

    let flags = "--server x --secondary-key second.key --secondary-local 99 --tls passthrough \
                 --secondary-cert-extension-hex cafe";
    let config = parse(&folder, flags).expect("is complete");
    let second = config.second.expect("a second endpoint");
    assert_eq!(key::fingerprint(&second.key), ids[1], "the key stays");
    assert_eq!(second.local.to_string(), "127.0.0.1:99");
    assert_eq!(second.claim, Some(vec![0xca, 0xfe]));
    assert_eq!(
        second.tls,
        TlsMode::Terminate,
        "or nobody would see its key"
    );
    assert_eq!(config.endpoint.claim, None);
}

#[test]
fn a_second_identity_is_another_one_and_its_flags_need_it() {
    let all = mistakes("--secondary-key client.key");
    assert!(all[0].starts_with("--secondary-key: "), "{all:?}");
    let all = mistakes("--secondary-key second.key --tls passthrough");
    assert!(all[0].contains("--secondary-local"), "{all:?}");
    for flag in ["--secondary-local 99", "--secondary-cert-extension-hex 00"] {
        let args = format!("client --server x {flag}");
        let parsed = Args::try_parse_from(args.split(' '));
        assert!(parsed.is_err(), "{flag}");
    }
}

/// Two relays and so many fingerprints, and what else is flagged.
fn two_relays(pins: &[KeyFingerprint], more: &str) -> String {
    let pins = pins
        .iter()
        .map(|pin| format!(" --server-fingerprint {pin}"));
    let servers = "--server first.example --server 192.0.2.7:99";
    format!("{servers}{} {more}", pins.collect::<String>())
}

#[test]
fn each_of_several_relays_has_its_fingerprint_in_their_order_and_other_rules_count_for_all() {
    let pins = [b"one", b"two"].map(|key| KeyFingerprint::of_spki(key));
    let relays = |pins, more| {
        let config = parse(&folder(), &two_relays(pins, more)).expect("is complete");
        let relays = config.relays.into_iter();
        let relays = relays.map(|relay| (relay.address.to_string(), relay.trust));
        <[_; 2]>::try_from(relays.collect::<Vec<_>>()).expect("two")
    };
    let names = ["first.example:4433", "192.0.2.7:99"].map(str::to_owned);
    let found = relays(&pins, "");
    assert_eq!(found.each_ref().map(|(name, _)| name.clone()), names);
    assert_eq!(found.map(|(_, trust)| trust), pins.map(RelayTrust::Pinned));
    let defaults = relays(&[], "").map(|(_, trust)| trust);
    assert_eq!(defaults, [RelayTrust::PublicCa, RelayTrust::FirstUse]);
    let believed = relays(&[], "--trust-on-first-use").map(|(_, trust)| trust);
    assert_eq!(believed, [RelayTrust::FirstUse, RelayTrust::FirstUse]);
}

#[test]
fn another_number_of_fingerprints_and_a_relay_that_is_named_twice_are_mistakes() {
    let pin = KeyFingerprint::of_spki(b"a key");
    for pins in [&[pin; 1][..], &[pin; 3]] {
        let told = parse(&folder(), &two_relays(pins, "")).expect_err("is wrong");
        let told = told.to_string();
        let write = "--server first.example:4433 --server-fingerprint sha256//… \
                     --server 192.0.2.7:99 --server-fingerprint sha256//…";
        assert!(told.contains(write), "{told}");
    }
    let again = "--server FIRST.example:4433 --server first.example";
    let told = parse(&folder(), &two_relays(&[], again)).expect_err("is wrong");
    assert_eq!(
        told.to_string(),
        "--server: first.example:4433 is named twice"
    );
}

#[test]
fn each_relay_has_the_proxy_that_the_environment_has_for_it_and_a_mistake_is_told_once() {
    let proxies = |proxy, exempt| {
        let variable = |name: &str| match name {
            "all_proxy" => Some(OsString::from(proxy)),
            "no_proxy" => Some(OsString::from(exempt)),
            _ => None,
        };
        let config = parse_among(&folder(), &two_relays(&[], ""), variable);
        let proxies = |config: Config| config.relays.into_iter().map(|relay| relay.proxy);
        config.map(|config| proxies(config).collect::<Vec<_>>())
    };
    let proxy = "http://p:1".parse().ok();
    let found = proxies("http://p:1", "first.example").expect("is complete");
    assert_eq!(found, [None, proxy.clone()]);
    let found = proxies("http://p:1", "").expect("is complete");
    assert_eq!(found, [proxy.clone(), proxy]);
    let told = proxies("ftp://p:1", "").expect_err("is wrong").to_string();
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn a_key_for_the_certificate_that_is_required_is_not_made() {
    let folder = folder();
    let flags = "--server x --acme --cert-key visitors.key";
    parse(&folder, flags).expect("both keys are made");
    let key = folder.path().join("visitors.key");
    assert!(key.exists());
    parse(&folder, &format!("{flags} --require-key")).expect("both are there");
    std::fs::remove_file(&key).expect("is ours");
    let missing = parse(&folder, &format!("{flags} --require-key"));
    let told = missing.expect_err("it is missing").to_string();
    assert!(
        told.contains("--cert-key") && told.lines().count() == 1,
        "{told}"
    );
    assert!(!key.exists());
}

#[test]
fn where_the_key_for_the_certificate_can_not_be_read_nothing_is_said_of_the_chain() {
    let folder = folder();
    let path = |name| folder.path().join(name);
    let key = key::load(&path("visitors.key"), key::IfMissing::Make);
    let (key, _) = key.expect("a key");
    let certified = tunnel_common::tls::self_signed(&key, &["a.example".to_owned()]);
    let chain = &certified.expect("signs").cert[0];
    std::fs::write(path("acme_cert.pem"), pem(chain)).expect("writes");
    let flags = "--server x --acme --cert-key visitors.key";
    parse(&folder, flags).expect("fits");
    std::fs::write(path("visitors.key"), "no key").expect("writes");
    let told = parse(&folder, flags).expect_err("is broken").to_string();
    assert!(
        told.contains("--cert-key") && !told.contains("--cert-pem"),
        "{told}"
    );
}

fn pem(certificate: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(certificate);
    let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    let lines = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

#[test]
fn the_ready_file_is_in_the_data_folder_unless_its_name_says_where() {
    let folder = folder();
    let data = folder.path().to_str().expect("UTF-8");
    for (given, expected) in [
        ("ready", folder.path().join("ready")),
        ("/nowhere/ready", "/nowhere/ready".into()),
    ] {
        let args = ["client", "--server", "x", "--data-dir", data];
        let args = args.into_iter().chain(["--ready-file", given]);
        let args = Args::try_parse_from(args).expect("parses");
        let Ok(Command::Publish { ready_file, .. }) = args.into_command(|_| None) else {
            panic!("publishing was asked for");
        };
        assert_eq!(ready_file, Some(expected));
    }
}
