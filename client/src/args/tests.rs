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
        Command::Publish(config) => Ok(*config),
        #[cfg(feature = "demo")]
        Command::Demo => panic!("the demo was not asked for"),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_server_is_enough() {
    let config = parse(&folder(), "--server 127.0.0.1:4433").expect("is complete");
    assert_eq!(config.relay.to_string(), "127.0.0.1:4433");
    assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:3000");
    assert_eq!(config.endpoint.alpn, [b"http/1.1"]);
    assert_eq!(config.trust, RelayTrust::FirstUse);
}

#[test]
fn flags_reach_the_configuration() {
    let pin = KeyFingerprint::of_spki(b"a key");
    let flags = format!(
        "--server relay.example --server-fingerprint {pin} --local 8080 --domain-suffix a.example \
         --alpn h2,http/1.1 --memory-budget 7 --congestion cubic"
    );
    let config = parse(&folder(), &flags).expect("is complete");
    assert_eq!(config.relay.to_string(), "relay.example:4433");
    assert_eq!(config.trust, RelayTrust::Pinned(pin));
    assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:8080");
    assert_eq!(config.endpoint.alpn, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(config.endpoint.suffix, "a.example".parse().ok());
    assert_eq!(config.memory_budget, 7 << 20);
    assert_eq!(config.congestion, Congestion::Cubic);
}

#[test]
fn a_proxy_reaches_the_configuration_and_a_bad_one_is_a_mistake_among_others() {
    let proxy = |flags, variable| {
        let flags = format!("--server x {flags}");
        let named = |name: &str| (name == "all_proxy").then(|| OsString::from(variable));
        parse_among(&folder(), &flags, named).map(|config| config.proxy)
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
