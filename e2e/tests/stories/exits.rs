//! How the binaries end: as asked, by a mistake of the user's, by a fault, by a refusal.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use e2e::origin::{echo, http};
use e2e::pair::{publish, server};
use e2e::poll::eventually;
use e2e::ports;
use e2e::process::{self, Process, client, folder};
use e2e::transport::Over;
use e2e::visitor::get;
use rstest::rstest;
use rustix::process::Signal;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

/// The process must end with `code`, having said each of `texts`, on standard error. Gives the log.
async fn ends_with(mut process: Process, code: i32, texts: &[&str]) -> String {
    assert_eq!(process.exit_code().await, code, "{}", process.log());
    for text in texts {
        process.logs(text).await;
    }
    assert_eq!(process.rest().await, Vec::<String>::new());
    process.log()
}

#[rstest]
#[tokio::test]
async fn either_signal_ends_either_binary_with_zero(#[values(Over::Quic, Over::H2)] over: Over) {
    let origin = http("x").await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = server(&[]).await;
        let mut client = publish(over, &server, origin.address, &[], folder()).await;
        client.process.signal(signal);
        assert_eq!(client.process.exit_code().await, 0, "client, {signal:?}");
        server.process.signal(signal);
        assert_eq!(server.process.exit_code().await, 0, "server, {signal:?}");
    }
}

#[rstest]
#[tokio::test]
async fn a_server_that_ends_says_so_to_its_clients(#[values(Over::Quic, Over::H2)] over: Over) {
    let (mut server, origin) = (server(&[]).await, http("x").await);
    let client = publish(over, &server, origin.address, &[], folder()).await;
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.exit_code().await, 0);
    let why = "closed by the peer: the peer is stopping";
    client.process.logs(why).await;
}

#[tokio::test]
async fn a_server_that_is_asked_to_end_as_soon_as_it_has_spoken_ends_with_zero() {
    for _ in 0..20 {
        let mut server = server(&[]).await;
        server.process.signal(Signal::TERM);
        assert_eq!(server.process.exit_code().await, 0);
    }
}

#[rstest]
#[tokio::test]
async fn a_client_that_has_found_no_server_yet_ends_with_zero_when_asked(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let address = silent.local_addr().expect("bound").to_string();
    let flags = over.with(&["--server", &address]);
    let mut client = client(&flags, folder());
    client.logs("connecting").await;
    client.signal(Signal::TERM);
    assert_eq!(client.exit_code().await, 0);
    assert_eq!(client.rest().await, Vec::<String>::new());
}

#[rstest]
#[tokio::test]
async fn a_server_with_visitors_ends_with_zero_and_they_see_an_end(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (mut server, origin) = (server(&[]).await, echo().await);
    let client = publish(over, &server, origin.address, &[], folder()).await;
    let visitor = e2e::visitor::visit(server.visitors(), client.host()).await;
    let mut visitor = visitor.expect("visits");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.exit_code().await, 0);
    let mut byte = [0];
    let read = tokio::io::AsyncReadExt::read(&mut visitor, &mut byte);
    let ended = e2e::poll::soon("the visit ends", read).await;
    assert!(!matches!(ended, Ok(1)), "nothing was sent: {ended:?}");
}

/// Whether of two processes that say goodbye to somebody frozen, which takes them a second, the one
/// that is told twice ends first, though it is told last.
async fn twice_is_quicker(once: &mut Process, twice: &mut Process) -> bool {
    once.signal(Signal::TERM);
    once.logs("ending, as asked").await;
    twice.signal(Signal::TERM);
    twice.logs("ending, as asked").await;
    twice.signal(Signal::TERM);
    assert_eq!(twice.exit_code().await, 0);
    let first = once.runs();
    assert_eq!(once.exit_code().await, 0);
    first
}

/// Two clients of a frozen server. Over HTTP/2 neither would wait for it.
async fn told_twice_ends_first() -> bool {
    let (server, origin) = (server(&[]).await, http("x").await);
    let mut once = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let mut twice = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    server.process.freezes().await;
    twice_is_quicker(&mut once.process, &mut twice.process).await
}

#[tokio::test]
async fn a_second_signal_ends_a_client_at_once() {
    // A busy machine may keep one of them from running for a second; not five times.
    for _ in 0..5 {
        if told_twice_ends_first().await {
            return;
        }
    }
    panic!("the second signal is not heard");
}

/// Two servers, each with a client that is frozen.
async fn server_told_twice_ends_first() -> bool {
    let origin = http("x").await;
    let (mut once, mut twice) = (server(&[]).await, server(&[]).await);
    let clients = [
        publish(Over::Quic, &once, origin.address, &[], folder()).await,
        publish(Over::Quic, &twice, origin.address, &[], folder()).await,
    ];
    for client in &clients {
        client.process.freezes().await;
    }
    twice_is_quicker(&mut once.process, &mut twice.process).await
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once() {
    for _ in 0..5 {
        if server_told_twice_ends_first().await {
            return;
        }
    }
    panic!("the second signal is not heard");
}

#[rstest]
#[tokio::test]
async fn a_client_with_a_foreign_domain_is_refused_and_told_why(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let server = server(&["--domain-suffix", "ours.example", "--open"]).await;
    let api = server.api.to_string();
    let flags = ["--server", &api, "--domain-suffix", "foreign.example"];
    let refused = client(&over.with(&flags), folder());
    ends_with(refused, REFUSED, &["refuses", "ours.example"]).await;
}

#[rstest]
#[tokio::test]
async fn a_wrong_fingerprint_is_told_with_both_keys_and_the_client_keeps_trying(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let server = server(&[]).await;
    let (api, pin) = (
        server.api.to_string(),
        format!("sha256//{}=", "A".repeat(43)),
    );
    let flags = ["--server", &api, "--server-fingerprint", &pin];
    let mut wrong = client(&over.with(&flags), folder());
    eventually("it has tried twice, and told both keys", || {
        let log = wrong.log();
        let tells = |line: &&str| line.contains(&pin) && line.contains(&server.key);
        log.lines().filter(tells).count() >= 2
    })
    .await;
    assert!(wrong.runs(), "{}", wrong.log());
    wrong.signal(Signal::TERM);
    assert_eq!(wrong.exit_code().await, 0);
    assert_eq!(wrong.rest().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_mistake_in_the_command_line_is_told_and_ends_with_two() {
    let server: [(&[&str], &[&str]); 7] = [
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--api-port", "65536"], &["--api-port", "65536"]),
        (&["--domain-suffix", "a..b"], &["--domain-suffix"]),
        (&["--tls-cert", "x.pem"], &["--tls-key"]),
        (&["--tls-key", "x.key"], &["--tls-cert"]),
        (
            &["--tls-cert", "no-such.pem", "--tls-key", "no-such.key"],
            &["no-such.pem"],
        ),
        (
            &[
                "--advertise-port",
                "0",
                "--tls-cert",
                "gone.pem",
                "--tls-key",
                "gone.key",
            ],
            &["--advertise-port", "gone.pem"],
        ),
    ];
    for (flags, texts) in server {
        ends_with(process::server(flags), USAGE, texts).await;
    }
    let client_cases: [(&[&str], &[&str]); 6] = [
        (&[], &["--server"]),
        (&["--server", "x", "--no-such-flag"], &["--no-such-flag"]),
        (&["--server", "https://x"], &["--server"]),
        (&["--server", "x", "--local", "0"], &["--local"]),
        (
            &["--server", "x", "--server-fingerprint", "sha256//AA"],
            &["--server-fingerprint"],
        ),
        (&["--local", "3000"], &["--server"]),
    ];
    for (flags, texts) in client_cases {
        ends_with(client(flags, folder()), USAGE, texts).await;
    }
}

#[tokio::test]
async fn an_advertised_host_that_can_not_be_dialled_is_a_mistake_and_not_printed() {
    for host in [
        "bad host",
        "https://relay.example",
        "relay.example:4433",
        "",
    ] {
        let server = process::server(&["--advertise-host", host]);
        ends_with(server, USAGE, &["--advertise-host"]).await;
    }
}

#[tokio::test]
async fn a_missing_file_is_told_once() {
    let flags = ["--tls-cert", "no-such.pem", "--tls-key", "no-such.key"];
    let log = ends_with(process::server(&flags), USAGE, &["no-such.pem"]).await;
    assert_eq!(log.matches("No such file").count(), 1, "{log}");
}

#[tokio::test]
async fn a_corrupt_key_file_is_a_mistake_and_is_never_replaced() {
    let keys = folder();
    for file in ["client.key", "relay.key"] {
        std::fs::write(keys.path().join(file), "no key").expect("writes");
    }
    let long = "n".repeat(256);
    let flags = ["--server", "x", "--alpn", &long];
    let wrong = client(&flags, keys.clone());
    ends_with(wrong, USAGE, &["--alpn", "client.key"]).await;
    let path = keys.path().to_str().expect("UTF-8").to_owned();
    let mut command = tokio::process::Command::new(process::binary("server"));
    command.args(["--data-dir", &path, "--bind-addr", "127.0.0.1"]);
    let wrong = process::spawn(command, keys.clone());
    ends_with(wrong, USAGE, &["relay.key"]).await;
    for file in ["client.key", "relay.key"] {
        let kept = std::fs::read_to_string(keys.path().join(file)).expect("is there");
        assert_eq!(kept, "no key");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_server_and_is_named() {
    let api = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let public = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let udp = api.local_addr().expect("bound");
    let tcp = public.local_addr().expect("bound");
    for (flag, taken) in [("--api-port", udp), ("--pub-port", tcp)] {
        let port = taken.port().to_string();
        let server = process::server(&[flag, &port]);
        let log = ends_with(server, FAILED, &[&taken.to_string()]).await;
        assert_eq!(log.matches("in use").count(), 1, "told once: {log}");
    }
}

#[tokio::test]
async fn a_second_port_that_is_taken_is_one_warning_and_the_rest_serves() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let address = taken.local_addr().expect("bound");
    let port = address.port().to_string();
    let (server, origin) = (server(&["--alpn-port", &port]).await, http("served").await);
    assert_eq!(server.public.len(), 1);
    let client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "served");
    let log = server.process.log();
    let told = |line: &&str| line.contains("WARN") && line.contains(&address.to_string());
    assert_eq!(log.lines().filter(told).count(), 1, "{log}");
}

#[tokio::test]
async fn equal_public_ports_are_bound_once() {
    let port = ports::tcp();
    let (address, number) = (ports::ADDRESS.to_string(), port.port.to_string());
    let flags = [
        "--bind-addr",
        &address,
        "--pub-port",
        &number,
        "--alpn-port",
        &number,
    ];
    let (server, origin) = (server(&flags).await, http("once").await);
    assert_eq!(server.public, [port.address()]);
    assert!(!server.process.log().contains("can not be bound"));
    let client = publish(Over::Quic, &server, origin.address, &[], folder()).await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "once");
}
