//! Agents whose network has no way out but a proxy: tinyproxy and microsocks, and a proxy made by hand
//! for what these would never do.

use std::collections::HashSet;
use std::io::ErrorKind::{NotFound, WouldBlock};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::agent::{Agent, config, new_key, start};
use e2e::forward_proxy::{ForwardProxy, SOURCE, microsocks, tinyproxy};
use e2e::origin::{Origin, http, origin, origin_at, reset};
use e2e::pair::{self, Server};
use e2e::poll::eventually;
use e2e::ports;
use e2e::process::{self, Process, folder};
use e2e::relay::{Relay, relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tunnel_client::config::{Config, Transport};
use tunnel_client::proxy::credentials;
use tunnel_client::resolve::{Resolve, Resolving};
use tunnel_common::private_file;

const LOGIN: (&str, &str) = ("aladdin", "open-sesame");
/// A name that `getaddrinfo` takes for 127.0.0.1 without asking anybody (inet_aton(3)).
const NAME: &str = "0x7f000001";
/// What a proxy that stands is given.
const IMPATIENT: Duration = Duration::from_millis(500);

/// Knows addresses, but no name.
#[derive(Debug)]
struct NoNames;

impl Resolve for NoNames {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        let address = host.parse::<IpAddr>();
        Box::pin(async move {
            let address = address.map_err(|_| NotFound)?;
            Ok(vec![SocketAddr::new(address, port)])
        })
    }
}

/// An agent's configuration with a proxy, whose URL may have credentials.
fn through(proxy: &str, relay: &Relay, origin: &Origin) -> Config {
    let mut config = config(Over::Quic, relay, new_key(), origin.address);
    config.transport = Transport::Any;
    config.relays[0].proxy = Some(proxy.parse().expect("a proxy"));
    config.last_port = None;
    config.resolver = Arc::new(NoNames);
    config
}

async fn serves_visitors(agent: &Agent, relay: &Relay) {
    let host = agent.host().await;
    let body = get(relay.public, &host).await;
    assert_eq!(body.expect("an answer"), "through a proxy");
}

#[tokio::test]
async fn an_agent_publishes_through_each_kind_of_proxy_with_a_password_and_without() {
    let (relay, origin) = (relay().await, http("through a proxy").await);
    let proxies = [
        (
            tinyproxy(None).await,
            tinyproxy(Some(LOGIN)).await,
            ["http", "http"],
        ),
        (
            microsocks(None).await,
            microsocks(Some(LOGIN)).await,
            ["socks5", "socks5h"],
        ),
    ];
    let (user, password) = LOGIN;
    for (open, closed, schemes) in proxies {
        for scheme in schemes {
            let with_login = format!("{scheme}://{user}:{password}@{}", closed.address);
            for url in [open.url(scheme), with_login] {
                let agent = start(through(&url, &relay, &origin));
                serves_visitors(&agent, &relay).await;
                agent.stop().await;
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_only_the_proxy_can_resolve_is_left_to_it() {
    let (relay, origin) = (relay().await, http("through a proxy").await);
    let (http, socks) = (tinyproxy(None).await, microsocks(None).await);
    for url in [http.url("http"), socks.url("socks5h")] {
        let mut config = through(&url, &relay, &origin);
        let named = format!("{NAME}:{}", relay.api.port());
        config.relays[0].address = named.parse().expect("a relay");
        serves_visitors(&start(config), &relay).await;
    }
}

#[tokio::test]
async fn where_the_proxy_does_not_reach_the_relays_port_the_last_one_is_tried() {
    let relay = relay_with(|config| config.bind_addr = ports::ADDRESS.into()).await;
    let origin = http("through a proxy").await;
    let (http, socks) = (tinyproxy(None).await, microsocks(None).await);
    let closed = ports::tcp();
    for url in [http.url("http"), socks.url("socks5"), socks.url("socks5h")] {
        let mut config = through(&url, &relay, &origin);
        config.relays[0].address = closed.address().to_string().parse().expect("a relay");
        config.last_port = Some(relay.public.port());
        serves_visitors(&start(config), &relay).await;
    }
}

/// A place before a relay that keeps who came over TCP, and what came over UDP.
struct Gate {
    address: SocketAddr,
    sources: Arc<Mutex<HashSet<IpAddr>>>,
    udp: UdpSocket,
    _passing: Origin,
    _port: ports::Reserved<std::net::TcpListener>,
}

async fn gate(relay: SocketAddr) -> Gate {
    let port = ports::tcp();
    let udp = UdpSocket::bind(port.address()).expect("binds");
    udp.set_nonblocking(true).expect("is a socket");
    let sources: Arc<Mutex<HashSet<_>>> = Arc::default();
    let seen = sources.clone();
    let at = port.address().to_string();
    let passing = origin_at(&at, move |mut near: TcpStream| {
        let peer = near.peer_addr().expect("is connected").ip();
        seen.lock().expect("not poisoned").insert(peer);
        async move {
            let mut far = TcpStream::connect(relay).await.expect("connects");
            // Breaks off with either end.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        }
    });
    Gate {
        address: port.address(),
        sources,
        udp,
        _passing: passing.await,
        _port: port,
    }
}

async fn nothing_goes_around(mut proxy: ForwardProxy, url: String) {
    let (relay, origin) = (relay().await, http("through a proxy").await);
    let gate = gate(relay.api).await;
    let mut config = through(&url, &relay, &origin);
    config.relays[0].address = gate.address.to_string().parse().expect("a relay");
    let agent = start(config);
    serves_visitors(&agent, &relay).await;

    proxy.is_killed().await;
    agent.is_cut_off().await;
    proxy.is_started_again().await;
    serves_visitors(&agent, &relay).await;

    let sources = gate.sources.lock().expect("not poisoned").clone();
    assert_eq!(sources, HashSet::from([SOURCE.into()]));
    let datagram = gate.udp.recv(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(datagram, Err(WouldBlock), "no UDP");
}

#[tokio::test]
async fn nothing_goes_around_an_http_proxy_even_while_it_is_dead_and_the_agent_comes_back() {
    let proxy = tinyproxy(None).await;
    let url = proxy.url("http");
    nothing_goes_around(proxy, url).await;
}

#[tokio::test]
async fn nothing_goes_around_a_socks_proxy_even_while_it_is_dead_and_the_agent_comes_back() {
    let proxy = microsocks(None).await;
    let url = proxy.url("socks5");
    nothing_goes_around(proxy, url).await;
}

/// A proxy that does what it should only after it has done everything else.
async fn hostile(relay: SocketAddr, comers: Arc<AtomicUsize>) -> Origin {
    origin(move |mut near: TcpStream| {
        let turn = comers.fetch_add(1, Ordering::Relaxed);
        async move {
            if turn == 0 {
                return reset(near);
            }
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                request.push(near.read_u8().await.expect("is asked"));
            }
            let answer = match turn {
                1 => std::future::pending().await,
                2 => b"\x15\x03\x03\x00\x02\x02\x28 you are no friend of mine\r\n\r\n".to_vec(),
                3 => [b"HTTP/1.1 200 OK\r\nX: ", vec![b'x'; 1 << 20].as_slice()].concat(),
                _ => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
            };
            // The agent breaks off when it has had enough.
            let _ = near.write_all(&answer).await;
            match turn {
                2 | 3 => {}
                4 => reset(near),
                5 => drop(near.write_all(b"this is no TLS at all").await),
                _ => {
                    let mut far = TcpStream::connect(relay).await.expect("connects");
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_hostile_proxy_is_outlived() {
    let (relay, origin) = (relay().await, http("through a proxy").await);
    let comers = Arc::default();
    let proxy = hostile(relay.api, Arc::clone(&comers)).await;
    let mut config = through(&format!("http://{}", proxy.address), &relay, &origin);
    config.timeouts.tcp_handshake = IMPATIENT;
    // Another turn for each dial: this proxy does not care about ports.
    config.last_port = Some(443);
    let agent = start(config);
    eventually("it has had its turns", || {
        comers.load(Ordering::Relaxed) > 6
    })
    .await;
    serves_visitors(&agent, &relay).await;
}

/// Starts `client` with these flags and variables for `server`.
fn client(server: &Server, flags: &[&str], variables: &[(&str, &str)]) -> Process {
    let (folder, api) = (folder(), server.api.to_string());
    let mut all = vec!["--server", &api, "--server-fingerprint", &server.key];
    all.extend(flags);
    let mut command = process::command("client", &all, &folder);
    command.envs(variables.iter().copied());
    process::spawn(command, folder)
}

#[tokio::test]
async fn the_binary_takes_the_proxy_of_its_environment() {
    let (server, origin) = (pair::server(&[]).await, http("through a proxy").await);
    let proxy = tinyproxy(Some(LOGIN)).await;
    let (user, password) = LOGIN;
    let url = format!("http://{user}:{password}@{}", proxy.address);
    let local = origin.address.to_string();
    let local = ["--local", &local];
    let client = client(&server, &local, &[("HTTPS_PROXY", &url)]);
    let client = pair::serving(client).await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "through a proxy");
    let log = client.process.log();
    assert!(
        log.contains(&format!("proxy=http://{}", proxy.address)),
        "{log}"
    );
    assert!(log.contains("HTTP/2") && !log.contains(password), "{log}");
}

#[tokio::test]
async fn the_binary_goes_without_a_proxy_where_it_is_told_to() {
    let server = pair::server(&[]).await;
    let nobody = ports::tcp();
    let url = format!("http://{}", nobody.address());
    let proxy = ("ALL_PROXY", url.as_str());
    let exempt = client(&server, &[], &[proxy, ("NO_PROXY", "127.0.0.0/8")]);
    let none = client(&server, &["--proxy", "none"], &[proxy]);
    for client in [exempt, none] {
        let client = pair::serving(client).await;
        client.process.logs("QUIC").await;
    }
}

#[tokio::test]
async fn the_binary_says_what_the_proxy_wants_and_never_the_password() {
    let server = pair::server(&[]).await;
    let (http, socks) = (tinyproxy(Some(LOGIN)).await, microsocks(Some(LOGIN)).await);
    let wrong = (credentials::VARIABLE, "aladdin:close-sesame");
    for url in [http.url("http"), socks.url("socks5")] {
        let flags = ["--proxy", &url];
        let nobody = client(&server, &flags, &[]);
        let stranger = client(&server, &flags, &[wrong]);
        nobody.logs("wants a user name and a password").await;
        nobody.logs("--proxy-credentials").await;
        stranger
            .logs("does not take this user name and password")
            .await;
        assert!(!stranger.log().contains("sesame"), "{}", stranger.log());
    }
}

#[tokio::test]
async fn the_binary_reads_credentials_from_a_file_that_is_its_owners_alone() {
    let server = pair::server(&[]).await;
    let proxy = microsocks(Some(LOGIN)).await;
    let (folder, (user, password)) = (folder(), LOGIN);
    let path = folder.path().join("credentials");
    let text = format!("{user}:{password}\n");
    private_file::create(&path, text.as_bytes()).expect("creates");
    let (url, path) = (proxy.url("socks5h"), path.to_str().expect("UTF-8"));
    let flags = ["--proxy", &url, "--proxy-credentials", path];
    let client = pair::serving(client(&server, &flags, &[])).await;
    assert!(!client.process.log().contains(password));
}

#[tokio::test]
async fn the_binary_says_that_its_proxy_is_not_there_or_refuses() {
    let server = pair::server(&[]).await;
    let (nobody, refuses) = (ports::tcp(), microsocks(None).await);
    let missing = format!("http://{}", nobody.address());
    let missing = client(&server, &["--proxy", &missing], &[]);
    let at = format!("it is not reached at {}", nobody.address());
    missing.logs(&at).await;

    let strange = client(&server, &["--proxy", &refuses.url("http")], &[]);
    strange.logs("it does not speak HTTP/1.1").await;
}

#[tokio::test]
async fn a_proxy_that_can_not_be_is_a_wrong_usage() {
    let server = pair::server(&[]).await;
    let flag = client(&server, &["--proxy", "http://aladdin:sesame@proxy:1"], &[]);
    let scheme = client(&server, &["--proxy", "https://proxy:1"], &[]);
    let variable = client(
        &server,
        &[],
        &[("all_proxy", "socks4://aladdin:sesame@proxy")],
    );
    for (mut client, says) in [
        (flag, "--proxy-credentials"),
        (scheme, "https:// is not supported"),
        (variable, "all_proxy"),
    ] {
        assert_eq!(client.exit_code().await, 2);
        client.logs(says).await;
        assert!(!client.log().contains("sesame"), "{}", client.log());
    }
}
