//! What a visitor is told who can not be served, byte by byte, and what he leaves behind.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use e2e::agent::{new_key, publish};
use e2e::arrival::knock;
use e2e::hello::{hello, hello_naming};
use e2e::origin::http;
use e2e::poll::{eventually, soon};
use e2e::process::{Process, server_logging};
use e2e::relay::{Relay, relay, relay_for, relay_with};
use e2e::tools::run;
use e2e::transport::Over;
use e2e::visitor::say;
use rstest::rstest;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tunnel_common::key;

const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const MISSING_EXTENSION: u8 = 109;
const UNRECOGNIZED_NAME: u8 = 112;

/// A fatal alert as it goes over the wire, in the clear.
fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

async fn answer(relay: &Relay, bytes: &[u8]) -> Vec<u8> {
    say(relay.public, bytes).await.expect("a clean end")
}

/// A name that could be an agent's, and is nobody's.
fn unknown_host() -> String {
    format!("{}.localhost", key::fingerprint(&new_key()).label())
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_names_no_host_is_told_so_and_gets_nobodys_service(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("not for you").await);
    let _only_agent = publish(over, &relay, origin.address).await;
    let nameless = [None, Some("127.0.0.1"), Some("::1"), Some("2001:db8::1")];
    for name in nameless {
        let said = answer(&relay, &hello_naming(name.map(str::as_bytes))).await;
        assert_eq!(said, alert(MISSING_EXTENSION), "{name:?}");
    }
    assert_eq!(
        answer(&relay, &hello_naming(Some(b""))).await,
        alert(DECODE_ERROR)
    );
}

#[tokio::test]
async fn openssl_understands_why_it_is_refused() {
    let relay = relay().await;
    let address = relay.public.to_string();
    let nameless = ["s_client", "-connect", &address, "-noservername"];
    let output = run("openssl", &nameless).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("SSL alert number 109"), "{text}");

    let unknown = unknown_host();
    let named = ["s_client", "-connect", &address, "-servername", &unknown];
    let output = run("openssl", &named).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("SSL alert number 112"), "{text}");
}

#[tokio::test]
async fn names_that_are_not_ours_are_refused_with_the_same_seven_bytes() {
    let relay = relay_for(&["tunnel.example", "second.example"]).await;
    let id = key::fingerprint(&new_key()).label().to_string();
    let names = [
        format!("{id}.tunnel.example"),
        format!("{id}.tunnel.example."),
        format!("{}.SECOND.example", id.to_uppercase()),
        "tunnel.example".to_owned(),
        format!("x.{id}.tunnel.example"),
        format!("{id}.tunnel.example.evil.com"),
        format!("{id}.eviltunnel.example"),
        format!("{}.tunnel.example", &id[1..]),
        format!("{}1.tunnel.example", &id[1..]),
        format!("a_b.{id}.tunnel.example"),
        "xn--bcher-kva.tunnel.example".to_owned(),
        "localhost".to_owned(),
        id,
    ];
    for name in names {
        let said = answer(&relay, &hello_naming(Some(name.as_bytes()))).await;
        assert_eq!(said, alert(UNRECOGNIZED_NAME), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_host_name_is_refused_as_a_bad_hello() {
    let relay = relay().await;
    let (longest, longer) = ([b'a'; 255], [b'a'; 256]);
    let names: [&[u8]; 6] = [
        "bücher.localhost".as_bytes(),
        b"nul\0.localhost",
        b"cr\r\nlf.localhost",
        b"\x1b[31mred.localhost",
        &longest,
        &longer,
    ];
    for name in names {
        let said = answer(&relay, &hello_naming(Some(name))).await;
        let allowed = [alert(ILLEGAL_PARAMETER), alert(DECODE_ERROR)];
        assert!(allowed.contains(&said), "{}: {said:?}", name.escape_ascii());
    }
}

#[rstest]
#[tokio::test]
async fn an_offline_agent_can_not_be_told_from_an_unknown_one_by_bytes_or_by_time(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("x").await);
    let agent = publish(over, &relay, origin.address).await;
    let offline = hello(&agent.host().await);
    agent.stop().await;
    let unknown = hello(&unknown_host());
    let (mut offline_times, mut unknown_times) = (vec![], vec![]);
    for _ in 0..50 {
        for (hello, times) in [
            (&offline, &mut offline_times),
            (&unknown, &mut unknown_times),
        ] {
            let started = Instant::now();
            assert_eq!(answer(&relay, hello).await, alert(UNRECOGNIZED_NAME));
            times.push(started.elapsed());
        }
    }
    let (offline, unknown) = (median(offline_times), median(unknown_times));
    println!("refused within {offline:?} (offline) and {unknown:?} (unknown)");
    assert!(offline.abs_diff(unknown) < Duration::from_millis(20));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn plain_http_to_a_host_of_ours_is_sent_to_https_at_the_public_port() {
    let relay = relay_for(&["tunnel.example"]).await;
    let host = format!("{}.tunnel.example", key::fingerprint(&new_key()).label());
    let port = relay.public.port();
    let request = format!("GET /a/b?c=d HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let said = String::from_utf8(answer(&relay, request.as_bytes()).await).expect("text");
    assert!(said.starts_with("HTTP/1.1 308 "), "{said}");
    let location = format!("\r\nLocation: https://{host}:{port}/a/b?c=d\r\n");
    assert!(said.contains(&location), "{said}");
    assert!(said.contains("\r\nConnection: close\r\n"), "{said}");

    let behind = relay_with(|config| config.advertise_port = Some(443)).await;
    let said = String::from_utf8(answer(&behind, request.as_bytes()).await).expect("text");
    let location = format!("\r\nLocation: https://{host}/a/b?c=d\r\n");
    assert!(said.contains(&location), "{said}");
}

#[tokio::test]
async fn plain_http_to_any_other_host_is_a_bad_request_and_no_redirect() {
    let relay = relay_for(&["tunnel.example"]).await;
    let id = key::fingerprint(&new_key()).label();
    let requests = [
        "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {id}.evil.example\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: tunnel.example\r\n\r\n".to_owned(),
        format!("GET http://evil.example/ HTTP/1.1\r\nHost: {id}.tunnel.example\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for request in requests {
        let said = String::from_utf8(answer(&relay, request.as_bytes()).await).expect("text");
        assert!(said.starts_with("HTTP/1.1 400 "), "{request}: {said}");
        assert!(!said.contains("Location"), "{request}: {said}");
    }
}

/// Openings of other protocols.
fn noise() -> [(&'static str, Vec<u8>); 5] {
    let sslv2 = [
        0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 7, 0, 0xc0, 3, 0,
    ];
    let random = (1..200_u8).map(|n| n.wrapping_mul(167) ^ 0x5a).collect();
    [
        (
            "an SSH banner",
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        ),
        ("an SSLv2 hello", sslv2.to_vec()),
        ("an alert", vec![21, 3, 1, 0, 2, 2, 40]),
        ("random bytes", random),
        ("application data", vec![23, 3, 3, 0, 1, 0]),
    ]
}

#[tokio::test]
async fn whoever_speaks_no_tls_gets_an_alert_and_the_end_at_once() {
    let relay = relay().await;
    for (what, bytes) in noise() {
        let started = Instant::now();
        assert_eq!(answer(&relay, &bytes).await, alert(DECODE_ERROR), "{what}");
        let elapsed = started.elapsed();
        println!("{what}: closed after {elapsed:?}");
        assert!(elapsed < Duration::from_secs(1), "{what}: {elapsed:?}");
    }
}

/// Waits until the relay has closed the connection, by FIN or by RST.
async fn is_closed(mut tcp: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match soon("the relay closes", tcp.read_to_end(&mut said)).await {
        Ok(_) => said,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => said,
        Err(error) => panic!("{error}"),
    }
}

async fn impatient() -> Relay {
    relay_with(|config| config.timeouts.client_hello = Duration::from_millis(200)).await
}

#[tokio::test]
async fn a_visitor_who_says_nothing_or_too_little_is_closed_at_the_deadline() {
    let relay = impatient().await;
    let half = &hello(&unknown_host())[..100];
    for bytes in [&b""[..], half, b"GET / HTTP/1.1\r\n"] {
        let started = Instant::now();
        let tcp = knock(relay.public, bytes).await.expect("connects");
        assert_eq!(is_closed(tcp).await, b"");
        assert!(started.elapsed() >= Duration::from_millis(200));
    }
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_prolong_the_deadline() {
    let relay = impatient().await;
    let tcp = knock(relay.public, b"").await.expect("connects");
    let hello = hello(&unknown_host());
    let mut sent = 0;
    eventually("the relay closes", || {
        let mut said = [0; 16];
        match tcp.try_read(&mut said) {
            Ok(0) => return true,
            Ok(_) => panic!("the whole hello was waited for: {said:?}"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
        sent += tcp.try_write(&hello[sent..=sent]).unwrap_or(0);
        false
    })
    .await;
    println!("closed after {sent} of {} bytes", hello.len());
    assert!(sent < hello.len());
}

/// A `server` whose log so far is only its own.
async fn server_at(filter: &str) -> (Process, std::net::SocketAddr) {
    let mut server = server_logging(filter, &[]);
    let public = server.address("PUBLIC: tcp ").await;
    (server, public)
}

/// The lines of the log since it was as long as `before`.
fn log_since(server: &Process, before: usize) -> Vec<String> {
    server.log()[before..].lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn port_scans_and_noise_leave_nothing_behind_and_no_complaint_in_the_log() {
    let (server, public) = server_at("info").await;
    assert_eq!(
        say(public, b"\0").await.expect("answers"),
        alert(DECODE_ERROR)
    );
    let (log, descriptors) = (server.log().len(), server.descriptors());
    let silent = knock(public, b"").await.expect("connects");
    for _ in 0..50 {
        drop(knock(public, b"").await.expect("connects"));
        let half = &hello(&unknown_host())[..100];
        drop(knock(public, half).await.expect("connects"));
    }
    for (_, bytes) in noise() {
        say(public, &bytes).await.expect("answers");
    }
    let refused = say(public, &hello(&unknown_host())).await;
    assert_eq!(refused.expect("answers"), alert(UNRECOGNIZED_NAME));
    drop(silent);
    eventually("every descriptor is given back", || {
        server.descriptors() <= descriptors
    })
    .await;
    assert_eq!(log_since(&server, log), Vec::<String>::new());
}

#[tokio::test]
async fn no_name_that_a_visitor_sends_breaks_a_line_of_the_log() {
    let (server, public) = server_at("trace").await;
    let names: [&[u8]; 4] = [
        b"esc\x1b[31m.localhost",
        b"crlf\r\n2026-01-01T00:00:00Z ERROR forged",
        b"nul\0.localhost",
        b"under_score.localhost",
    ];
    for name in names {
        say(public, &hello_naming(Some(name)))
            .await
            .expect("answers");
        let host = [b"GET / HTTP/1.1\r\nHost: ", name, b"\r\n\r\n"].concat();
        say(public, &host).await.expect("answers");
    }
    server.logs("refused").await;
    let log = server.log();
    let bad = |b: u8| b.is_ascii_control() && b != b'\n';
    assert!(!log.bytes().any(bad), "{}", log.escape_debug());
    for line in log.lines() {
        assert!(line.starts_with("20"), "no line of its own: {line:?}");
        let complains = line.contains(" ERROR ") || line.contains("forged");
        assert!(!complains, "{line:?}");
    }
}
