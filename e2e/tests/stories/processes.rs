//! The two binaries as a user starts them: what they print, and what survives a restart.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;

use e2e::origin::{Origin, http};
use e2e::pair::{self, Client, Server, at, publish, server, server_at};
use e2e::poll::until_ok;
use e2e::ports;
use e2e::process::{self, Process, folder};
use e2e::transport::Over;
use e2e::visitor::get;
use rcgen::{CertificateParams, KeyPair};
use rstest::rstest;
use rustix::process::Signal;
use tokio::process::Command;

/// Visits what a client publishes, until it answers.
async fn visited(server: &Server, client: &Client) -> String {
    until_ok("a visitor is served", async || {
        get(server.visitors(), client.host()).await
    })
    .await
}

fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

async fn stop(mut process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code().await, 0);
}

#[tokio::test]
async fn the_server_prints_where_it_listens_and_a_client_command_that_publishes_when_pasted() {
    let (server, origin) = (server(&[]).await, http("pasted").await);
    assert_eq!(server.public.len(), 2, "a public and a second port");
    assert!(server.public.iter().all(|address| address.port() != 0));
    assert!(server.key.starts_with("sha256//"), "{}", server.key);

    let words: Vec<_> = server.command.split(' ').collect();
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let expected = [
        "client",
        "--server",
        &api,
        "--server-fingerprint",
        &server.key,
    ];
    assert_eq!(words[..5], expected);
    assert_eq!(words[5..], ["--local", "127.0.0.1:3000"]);

    let mut flags = words[1..].to_vec();
    flags[5] = &local;
    let client = pair::serving(process::client(&flags, folder())).await;
    assert_eq!(visited(&server, &client).await, "pasted");
    let second = get(server.public[1], client.host()).await;
    assert_eq!(second.expect("the second port serves as well"), "pasted");
}

#[tokio::test]
async fn the_client_prints_its_id_and_its_url_and_nothing_else() {
    let (server, origin) = (server(&[]).await, http("x").await);
    let mut client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    assert!(is_id(&client.id), "{}", client.id);
    let port = server.visitors().port();
    assert_eq!(
        client.url,
        format!("https://{}.localhost:{port}", client.id)
    );
    assert_eq!(client.visitor_key().label().to_string(), client.id);
    visited(&server, &client).await;
    client.process.signal(Signal::TERM);
    assert_eq!(client.process.exit_code().await, 0);
    assert_eq!(client.process.rest().await, Vec::<String>::new());
}

#[rstest]
#[tokio::test]
async fn a_restarted_server_is_found_again_and_the_client_prints_nothing_new(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (api, public, data, origin) = (ports::udp(), ports::tcp(), folder(), http("again").await);
    let flags = at(api.port, public.port, data.path());
    let first = server_at(&flags).await;
    let mut client = publish(over, &first, origin.address, &[], folder()).await;
    assert_eq!(visited(&first, &client).await, "again");
    let key = first.key.clone();
    stop(first.process).await;

    let second = server_at(&flags).await;
    assert_eq!(second.key, key, "its key is in the data folder");
    assert_eq!(visited(&second, &client).await, "again");
    client.process.signal(Signal::INT);
    assert_eq!(client.process.exit_code().await, 0);
    assert_eq!(client.process.rest().await, Vec::<String>::new());
}

#[rstest]
#[tokio::test]
async fn the_same_key_file_gives_the_same_url_and_another_one_another(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (server, origin, keys) = (server(&[]).await, http("x").await, folder());
    let first = publish(over, &server, origin.address, &[], keys.clone()).await;
    stop(first.process).await;
    let again = publish(over, &server, origin.address, &[], keys.clone()).await;
    assert_eq!(again.url, first.url);
    let flags = ["--primary-key", "other.key"];
    let other = publish(over, &server, origin.address, &flags, keys).await;
    assert_ne!(other.url, first.url);
    assert_eq!(visited(&server, &again).await, "x");
    assert_eq!(visited(&server, &other).await, "x");
}

#[tokio::test]
async fn the_port_of_the_url_is_the_advertised_one_and_443_is_left_out() {
    let origin = http("x").await;
    for (advertised, shown) in [("443", ""), ("8080", ":8080")] {
        let server = server(&["--advertise-port", advertised]).await;
        let client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
        assert_eq!(
            client.url,
            format!("https://{}.localhost{shown}", client.id)
        );
        assert_eq!(visited(&server, &client).await, "x");
    }
}

#[tokio::test]
async fn a_client_gets_its_url_under_the_domain_that_it_names() {
    let suffixes = "--open --domain-suffix first.example --domain-suffix second.example";
    let flags: Vec<_> = suffixes.split(' ').collect();
    let (server, origin) = (server(&flags).await, http("second").await);
    assert!(
        server.command.contains("--server first.example:"),
        "{}",
        server.command
    );
    let port = server.visitors().port();
    let default = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let url = format!("https://{}.first.example:{port}", default.id);
    assert_eq!(default.url, url);
    let flags = ["--domain-suffix", "second.example"];
    let named = publish(Over::Quic, &server, origin.address, &flags, folder()).await;
    let url = format!("https://{}.second.example:{port}", named.id);
    assert_eq!(named.url, url);
    assert_eq!(visited(&server, &named).await, "second");
}

#[rstest]
#[tokio::test]
async fn a_client_that_starts_before_its_server_serves_as_soon_as_that_is_there(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (api, public, data, origin) = (ports::udp(), ports::tcp(), folder(), http("late").await);
    let (to, local) = (api.address().to_string(), origin.address.to_string());
    let flags = over.with(&["--server", &to, "--local", &local]);
    let early = process::client(&flags, folder());
    early.logs("connecting").await;
    let server = server_at(&at(api.port, public.port, data.path())).await;
    let client = pair::serving(early).await;
    assert_eq!(visited(&server, &client).await, "late");
}

#[tokio::test]
async fn an_own_certificate_is_what_the_key_line_names() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["relay.example".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let files = folder();
    let path = |name| files.path().join(name).to_str().expect("UTF-8").to_owned();
    let (chain, private) = (path("tls.pem"), path("tls.key"));
    std::fs::write(&chain, certificate.pem()).expect("writes");
    std::fs::write(&private, key.serialize_pem()).expect("writes");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&private, mode).expect("is ours");

    let server = server(&["--tls-cert", &chain, "--tls-key", &private]).await;
    let fingerprint = pair::fingerprint(private.as_ref());
    assert_eq!(server.key, fingerprint.to_string());
    assert!(
        !server.process.folder().path().join("relay.key").exists(),
        "no second key"
    );
    let origin = http("own certificate").await;
    let client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    assert_eq!(visited(&server, &client).await, "own certificate");
}

async fn publishes_over(over: Over, api: SocketAddr, server: &Server, origin: &Origin) {
    let (to, local) = (api.to_string(), origin.address.to_string());
    let flags = over.with(&["--server", &to, "--local", &local]);
    let client = pair::serving(process::client(&flags, folder())).await;
    let port = server.visitors().port();
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let body = get(SocketAddr::new(ip, port), client.host()).await;
        assert_eq!(body.expect("an answer"), "both", "{ip}, agent over {api}");
    }
}

#[rstest]
#[tokio::test]
async fn a_server_on_the_ipv6_wildcard_takes_agents_and_visitors_of_both_families(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    if let Err(error) = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        eprintln!("SKIPPED: this machine has no IPv6: {error}");
        return;
    }
    let (server, origin) = (server(&["--bind-addr", "::"]).await, http("both").await);
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let api = SocketAddr::new(ip, server.api.port());
        publishes_over(over, api, &server, &origin).await;
    }
}

/// The soft and the hard limit of open descriptors.
fn limits(process: &Process) -> Vec<String> {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("runs");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("is limited");
    line.split_whitespace().take(2).map(str::to_owned).collect()
}

/// Starts a binary with few descriptors, though it may have more.
fn confined(name: &str, flags: &[&str]) -> Process {
    let folder = folder();
    let inner = process::command(name, flags, &folder);
    let mut command = Command::new("prlimit");
    command.arg("--nofile=256:4096");
    command.arg(inner.as_std().get_program());
    command.args(inner.as_std().get_args());
    process::spawn(command, folder)
}

#[tokio::test]
async fn both_raise_their_descriptor_limit_to_the_hard_one() {
    let ports = ["--api-port", "0", "--pub-port", "0", "--alpn-port", "0"];
    let flags = [&["--bind-addr", "127.0.0.1"], &ports[..]].concat();
    let server = pair::introduce(confined("server", &flags)).await;
    assert_eq!(limits(&server.process), ["4096", "4096"]);
    let (api, origin) = (server.api.to_string(), http("x").await);
    let local = origin.address.to_string();
    let flags = ["--server", &api, "--local", &local];
    let client = pair::serving(confined("client", &flags)).await;
    assert_eq!(limits(&client.process), ["4096", "4096"]);
}

#[tokio::test]
async fn an_advertised_host_is_printed_so_that_it_can_be_pasted() {
    for (host, pasted) in [
        ("relay.example", "relay.example"),
        ("2001:db8::1", "[2001:db8::1]"),
    ] {
        let server = server(&["--advertise-host", host]).await;
        let to = format!("client --server {pasted}:{} ", server.api.port());
        assert!(server.command.starts_with(&to), "{}", server.command);
    }
}

#[tokio::test]
async fn a_bare_port_and_a_host_name_do_for_the_local_service() {
    let (server, origin) = (server(&[]).await, http("found").await);
    let port = origin.address.port();
    for local in [port.to_string(), format!("localhost:{port}")] {
        let api = server.api.to_string();
        let flags = ["--server", &api, "--local", &local];
        let client = pair::serving(process::client(&flags, folder())).await;
        assert_eq!(visited(&server, &client).await, "found", "{local}");
    }
}

#[rstest]
#[tokio::test]
async fn a_client_that_was_killed_serves_every_visitor_again_once_it_has_said_so(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (server, origin, keys) = (server(&[]).await, http("back").await, folder());
    let mut first = publish(over, &server, origin.address, &[], keys.clone()).await;
    assert_eq!(visited(&server, &first).await, "back");
    first.process.signal(Signal::KILL);
    first.process.ends().await;
    let again = publish(over, &server, origin.address, &[], keys).await;
    assert_eq!(again.url, first.url);
    for _ in 0..10 {
        let body = get(server.visitors(), again.host()).await;
        assert_eq!(body.expect("an answer"), "back");
    }
}

#[tokio::test]
async fn a_client_whose_reader_has_stopped_to_read_serves_and_ends_all_the_same() {
    let (server, origin, keys) = (server(&[]).await, http("stuck").await, folder());
    let (_reader, mut full) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&full, true).expect("does not block");
    while full.write(&[b'x'; 4096]).is_ok() {}
    while full.write(b"x").is_ok() {}
    // Opened anew, it blocks whoever writes.
    let path = format!("/proc/{}/fd/{}", std::process::id(), full.as_raw_fd());
    let (api, local) = (server.api.to_string(), origin.address.to_string());
    let inner = process::command("client", &["--server", &api, "--local", &local], &keys);
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$0" "$@" > "$FULL""#]);
    command.env("FULL", path).env("RUST_LOG", "info");
    command.arg(inner.as_std().get_program());
    command.args(inner.as_std().get_args());
    let stuck = process::spawn(command, keys.clone());
    stuck.logs("tunnel serves").await;
    let id = pair::fingerprint(&keys.path().join("client.key")).label();
    let served = until_ok("a visitor is served", async || {
        get(server.visitors(), &format!("{id}.localhost")).await
    });
    assert_eq!(served.await, "stuck");
    stop(stuck).await;
}
