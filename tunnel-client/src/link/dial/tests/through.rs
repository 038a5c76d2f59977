use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::quic::Congestion;
use tunnel_common::tls;

use super::*;
use crate::link::belief::TlsSettings;

const SHORT: Duration = Duration::from_millis(300);

/// Knows the proxy, and nobody else.
#[derive(Debug)]
struct Only(SocketAddr);

impl Resolve for Only {
    fn resolve<'a>(&'a self, host: &'a str, _: u16) -> Resolving<'a> {
        Box::pin(async move {
            match host {
                "proxy.corp" => Ok(vec![self.0]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }
}

fn dialler(scheme: &str, proxy: SocketAddr) -> Dialler {
    let timeouts = Timeouts {
        tcp_handshake: SHORT,
        welcome: Duration::ZERO,
        ..Timeouts::default()
    };
    let key = tls::generate_key().expect("a key");
    let tls = TlsSettings {
        identity: tls::self_signed(&key, &[]).expect("signs"),
        trust: RelayTrust::Pinned(KeyFingerprint::of_spki(b"a key")),
        known_relays: None,
        clock: Clock::default(),
    };
    let url = format!("{scheme}://aladdin:sesame@proxy.corp:{}", proxy.port());
    let budget = MemoryBudget::new(1 << 30);
    let quic = OverUdp::new(Congestion::default(), 1 << 20, timeouts.quic);
    let h2 = OverTcp::new(Congestion::default(), budget, &timeouts);
    let relay = "relay.example".parse().expect("a relay");
    Dialler::new(relay, tls, (quic, h2), timeouts, Arc::new(Only(proxy)))
        .expect("a dialler")
        .with_proxy(Some(url.parse().expect("a proxy")))
}

/// Why the relay is not reached through a proxy that serves everybody like this, and how many came.
async fn fails(scheme: &str, serve: impl AsyncFn(TcpStream)) -> (String, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let dialler = dialler(scheme, listener.local_addr().expect("bound"));
    let mut comers = 0;
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.expect("accepts");
            comers += 1;
            serve(stream).await;
        }
    };
    let error = tokio::select! {
        dialled = reach(&dialler) => dialled.expect_err("is not reached").to_string(),
        () = serving => unreachable!("it serves for ever"),
    };
    let proxy = format!("through the proxy {scheme}://proxy.corp:");
    assert!(error.contains(&proxy), "{error}");
    assert!(!error.contains("sesame"), "{error}");
    (error, comers)
}

/// Both ways that lead through a proxy.
async fn reach(dialler: &Dialler) -> Result<Ready, DialError> {
    dialler.reach(&[Way::H2, Way::H2At(443)], &hello()).await
}

/// Answers the request, and waits for what comes next.
async fn answer(mut stream: TcpStream, answer: &[u8]) -> TcpStream {
    let mut request = vec![];
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.expect("is asked"));
    }
    stream.write_all(answer).await.expect("takes it");
    stream
}

#[tokio::test]
async fn a_refusal_is_told_for_each_port() {
    let refusing = async |stream| drop(answer(stream, b"HTTP/1.1 403 Filtered\r\n\r\n").await);
    let (error, comers) = fails("http", refusing).await;
    assert_eq!(comers, 2, "{error}");
    for part in ["relay.example:4433", "relay.example:443", "HTTP status 403"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_shown_once() {
    let asking = async |stream| drop(answer(stream, b"HTTP/1.1 407 Who\r\n\r\n").await);
    let (error, comers) = fails("http", asking).await;
    assert_eq!(comers, 1, "{error}");
    assert!(error.contains("--proxy-credentials"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_stands_is_given_up_and_told_apart_from_a_relay_that_does() {
    let held = Mutex::new(vec![]);
    let standing = async |stream| held.lock().expect("not poisoned").push(stream);
    for scheme in ["http", "socks5h"] {
        let (error, comers) = fails(scheme, standing).await;
        assert_eq!(comers, 2, "{error}");
        assert!(error.contains("it does not answer"), "{error}");
    }
    let silent = async |stream| {
        let stream = answer(stream, b"HTTP/1.1 200 OK\r\n\r\n").await;
        held.lock().expect("not poisoned").push(stream);
    };
    let (error, _) = fails("http", silent).await;
    assert!(
        error.contains("relay.example:4433 (TCP): timed out"),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_that_is_reset_behind_its_yes_is_told() {
    let resetting = async |stream| {
        let stream = answer(stream, b"HTTP/1.1 200 OK\r\n\r\n").await;
        stream.set_zero_linger().expect("is open");
    };
    let (error, comers) = fails("http", resetting).await;
    assert_eq!(comers, 2, "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_told_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let error = reach(&dialler("http", address)).await;
    let error = error.expect_err("is not reached").to_string();
    assert!(
        error.contains(&format!("it is not reached at {address}")),
        "{error}"
    );
    assert_eq!(error.matches("is not reached at").count(), 1, "{error}");
}

#[tokio::test]
async fn a_relay_that_we_can_not_resolve_is_not_asked_of_a_socks5_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let dialler = dialler("socks5", listener.local_addr().expect("bound"));
    let error = tokio::select! {
        dialled = reach(&dialler) => dialled.expect_err("is not reached").to_string(),
        _ = listener.accept() => panic!("it was asked"),
        never = pending::<String>() => never,
    };
    assert_eq!(error.matches("could not be found").count(), 1, "{error}");
    assert!(error.contains("socks5h://"), "{error}");
}
