//! Who the visitor is when he comes through a proxy, and who may say so.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::agent::{new_key, publish};
use e2e::arrival::{Arrival, arrival};
use e2e::haproxy::haproxy;
use e2e::hello::hello;
use e2e::origin::http;
use e2e::peer::{Peer, PeerControl, connect, hello as agents_hello};
use e2e::poll::soon;
use e2e::process::server_logging;
use e2e::relay::{Relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::get;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tunnel_common::key;

/// Where the proxies of these stories are …
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// … and somebody whom nobody trusts.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A fatal decode_error, as it goes over the wire.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Visitors at one time.
const CROWD: usize = 100;

struct World {
    relay: Relay,
    peer: Peer,
    hello: Vec<u8>,
    _control: PeerControl,
}

/// A relay that trusts [`PROXY`], and an agent that sees what the relay says about its visitors.
async fn world(over: Over) -> World {
    world_waiting(over, Duration::from_secs(10)).await
}

async fn world_waiting(over: Over, client_hello: Duration) -> World {
    let trusted = PROXY.to_string().parse().expect("a network");
    let relay = relay_with(|config| {
        config.trusted_proxies = vec![trusted];
        config.timeouts.client_hello = client_hello;
    })
    .await;
    let peer = connect(over, relay.api, &new_key(), 1000).await;
    let (control, _) = peer.register(agents_hello(1, 0)).await;
    World {
        hello: hello(&peer.host()),
        relay,
        peer,
        _control: control,
    }
}

/// Connects from this address.
async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("binds");
    let tcp = socket.connect(to).await.expect("connects");
    tcp.set_nodelay(true).expect("is connected");
    tcp
}

impl World {
    async fn connect_from(&self, source: Ipv4Addr) -> TcpStream {
        connect_from(source, self.relay.public).await
    }

    /// The visit that `header` and a hello from the proxy lead to; the hello arrives whole.
    async fn visit_behind(&self, header: &[u8]) -> (TcpStream, Arrival) {
        let mut tcp = self.connect_from(PROXY).await;
        let sent = [header, &self.hello].concat();
        tcp.write_all(&sent).await.expect("sends");
        (tcp, self.arrives().await)
    }

    async fn arrives(&self) -> Arrival {
        let mut arrived = arrival(&self.peer).await;
        assert_eq!(arrived.bytes(self.hello.len()).await, self.hello);
        arrived
    }

    /// All that the relay answers to these bytes from the proxy before it closes.
    async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut tcp = self.connect_from(PROXY).await;
        tcp.write_all(bytes).await.expect("sends");
        until_closed(tcp).await
    }
}

/// Reads until the relay has closed, by FIN or by RST.
async fn until_closed(mut tcp: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match soon("the relay closes", tcp.read_to_end(&mut said)).await {
        Ok(_) => said,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => said,
        Err(error) => panic!("{error}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A header of version 2.
fn v2(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let fixed = [command, family];
    [&SIGNATURE[..], &fixed, &length.to_be_bytes(), content].concat()
}

fn v2_of(visitor: SocketAddr, public: SocketAddr) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if visitor.is_ipv4() { 0x11 } else { 0x21 };
    let ports = [visitor.port(), public.port()].map(u16::to_be_bytes);
    let addresses = [octets(visitor.ip()), octets(public.ip()), ports.concat()];
    v2(0x21, family, &addresses.concat())
}

#[rstest]
#[tokio::test]
async fn the_agent_learns_from_a_trusted_proxy_who_came_and_where_to(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let world = world(over).await;
    let v4 = (address("203.0.113.7:50000"), address("192.0.2.1:443"));
    let v6 = (
        address("[2001:db8::7]:50000"),
        address("[2001:db8::1]:8443"),
    );
    let cases = [
        (
            b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
            v4,
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 8443\r\n".to_vec(),
            v6,
        ),
        (v2_of(v4.0, v4.1), v4),
        (v2_of(v6.0, v6.1), v6),
    ];
    for (header, (visitor, public)) in cases {
        let (mut tcp, mut arrived) = world.visit_behind(&header).await;
        assert_eq!(arrived.header.visitor, visitor);
        assert_eq!(arrived.header.public, public);
        arrived.exchanges(&mut tcp).await;
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let world = world(Over::Quic).await;
    let visitor = address("203.0.113.7:50000");
    let headers = [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
        v2_of(visitor, address("192.0.2.1:443")),
    ];
    for header in headers {
        let mut tcp = world.connect_from(PROXY).await;
        for byte in [&header[..], &world.hello].concat() {
            tcp.write_all(&[byte]).await.expect("sends");
            // Lets the relay, in this runtime too, read what has come.
            tokio::task::yield_now().await;
        }
        assert_eq!(world.arrives().await.header.visitor, visitor);
    }
}

#[tokio::test]
async fn a_proxy_that_speaks_for_itself_is_the_visitor() {
    let world = world(Over::Quic).await;
    let unix = [b'/'; 216];
    let headers = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
        v2(0x20, 0, b""),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0x31, &unix),
    ];
    for header in headers {
        let (tcp, arrived) = world.visit_behind(&header).await;
        assert_eq!(arrived.header.visitor, tcp.local_addr().expect("bound"));
        assert_eq!(arrived.header.public, world.relay.public);
    }
}

#[tokio::test]
async fn from_everybody_else_a_header_is_no_tls() {
    let world = world(Over::Quic).await;
    let forged = address("203.0.113.7:50000");
    let headers = [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n".to_vec(),
        v2_of(forged, address("192.0.2.1:443")),
        v2(0x20, 0, b""),
    ];
    for header in headers {
        let mut tcp = world.connect_from(STRANGER).await;
        let sent = [&header[..], &world.hello].concat();
        tcp.write_all(&sent).await.expect("sends");
        assert_eq!(until_closed(tcp).await, DECODE_ERROR);
    }
    let mut tcp = world.connect_from(STRANGER).await;
    tcp.write_all(&world.hello).await.expect("sends");
    let arrived = world.arrives().await;
    assert_eq!(arrived.header.visitor, tcp.local_addr().expect("bound"));
}

#[tokio::test]
async fn a_trusted_proxy_that_does_not_say_who_comes_is_closed_without_a_word() {
    let world = world(Over::Quic).await;
    let started = Instant::now();
    let openings: [&[u8]; 3] = [&world.hello, b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n"];
    for opening in openings {
        assert_eq!(world.answer(opening).await, b"");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "not at once");
}

#[tokio::test]
async fn a_header_that_is_broken_or_too_long_is_closed_at_once() {
    let world = world(Over::Quic).await;
    let started = Instant::now();
    let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
    let too_long = [&v2(0x21, 0x11, &[1; 12])[..14], &[255, 255], &[1; 12]].concat();
    let headers = [
        b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n".to_vec(),
        endless,
        too_long,
        v2(0x21, 0x11, &[1; 11]),
        v2(0x21, 0x77, &[1; 12]),
    ];
    for header in headers {
        let sent = [&header[..], &world.hello].concat();
        assert_eq!(world.answer(&sent).await, b"", "{}", header.escape_ascii());
    }
    assert!(started.elapsed() < Duration::from_secs(5), "not at once");
}

#[tokio::test]
async fn header_and_hello_have_one_deadline() {
    let limit = Duration::from_millis(300);
    let world = world_waiting(Over::Quic, limit).await;
    let mut longer_than_said = v2_of(address("203.0.113.7:50000"), address("192.0.2.1:443"));
    // Swallows the hello and wants more.
    longer_than_said[14..16].copy_from_slice(&4000_u16.to_be_bytes());
    longer_than_said.extend_from_slice(&world.hello);
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 443\r\n";
    let half_a_hello = [&header[..], &world.hello[..100]].concat();
    for bytes in [b"", &header[..20], &longer_than_said, &half_a_hello] {
        let started = Instant::now();
        assert_eq!(world.answer(bytes).await, b"");
        assert!(started.elapsed() >= limit);
    }
}

#[tokio::test]
async fn plain_http_behind_a_header_is_answered_as_ever() {
    let world = world(Over::Quic).await;
    let host = world.peer.host();
    let request = format!("PROXY UNKNOWN\r\nGET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let said = String::from_utf8(world.answer(request.as_bytes()).await).expect("text");
    let location = format!(
        "Location: https://{host}:{}/a\r\n",
        world.relay.public.port()
    );
    assert!(said.contains(&location), "{said}");
}

#[tokio::test]
async fn a_proxy_is_known_by_its_ipv4_address_at_a_port_that_takes_both() {
    let trusted = PROXY.to_string().parse().expect("a network");
    let relay = relay_with(|config| {
        config.bind_addr = Ipv6Addr::UNSPECIFIED.into();
        config.trusted_proxies = vec![trusted];
    })
    .await;
    let public = SocketAddr::from((PROXY, relay.public.port()));
    let sent = b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n\r\n";
    for (source, begins) in [(PROXY, &b"HTTP/1.1 400 "[..]), (STRANGER, &DECODE_ERROR)] {
        let mut tcp = connect_from(source, public).await;
        tcp.write_all(sent).await.expect("sends");
        assert!(until_closed(tcp).await.starts_with(begins), "{source}");
    }
}

#[tokio::test]
async fn the_log_names_the_visitor_and_not_the_proxy() {
    let flags = ["--trusted-proxy", "127.0.0.1/32", "--trusted-proxy", "::1"];
    let mut server = server_logging("debug", &flags);
    let public = server.address("PUBLIC: tcp ").await;
    let unknown = format!("{}.localhost", key::fingerprint(&new_key()).label());
    let header = b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 443\r\n";
    let sent = [&header[..], &hello(&unknown)].concat();
    for (source, bytes) in [
        (PROXY, &sent),
        (STRANGER, &hello(&unknown)),
        (PROXY, &hello(&unknown)),
    ] {
        let mut tcp = connect_from(source, public).await;
        tcp.write_all(bytes).await.expect("sends");
        until_closed(tcp).await;
    }
    server.logs("a trusted proxy does not say who comes").await;
    let log = server.log();
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("not a name of ours") || line.contains("not connected"))
        .collect();
    let [through_proxy, direct] = refused[..] else {
        panic!("{log}");
    };
    assert!(
        through_proxy.contains("visitor=[2001:db8::7]:50000}"),
        "{log}"
    );
    assert!(direct.contains(&format!("visitor={STRANGER}:")), "{log}");
}

/// The visitors of a crowd, each from an address of his own, as they are and as the agent sees them.
async fn crowd_through(world: &World, proxy: SocketAddr) {
    let mut visitors = vec![];
    for number in 0..CROWD {
        let host = u8::try_from(number).expect("a small crowd");
        let mut tcp = connect_from(Ipv4Addr::new(127, 7, 7, host), proxy).await;
        tcp.write_all(&world.hello).await.expect("sends");
        visitors.push(tcp);
    }
    let came: HashSet<_> = visitors
        .iter()
        .map(|tcp| tcp.local_addr().expect("bound"))
        .collect();
    let mut seen = HashSet::new();
    for _ in 0..CROWD {
        let arrived = world.arrives().await;
        assert_eq!(arrived.header.public, proxy);
        seen.insert(arrived.header.visitor);
    }
    assert_eq!(seen, came);
}

#[rstest]
#[tokio::test]
async fn behind_haproxy_the_agent_sees_every_visitors_own_address(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let world = world(over).await;
    for option in ["send-proxy", "send-proxy-v2"] {
        let mut proxy = haproxy(world.relay.public, option).await;
        crowd_through(&world, proxy.address).await;
        proxy.is_content().await;
    }
}

#[rstest]
#[tokio::test]
async fn haproxy_finds_the_relay_healthy_serves_pages_and_leaves_nothing_in_the_log(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let origin = http("through HAProxy").await;
    for option in ["send-proxy", "send-proxy-v2"] {
        let mut server = e2e::pair::server(&["--trusted-proxy", "127.0.0.0/29"]).await;
        let folder = e2e::process::folder();
        let client = e2e::pair::publish(over, &server, origin.address, &[], folder).await;
        server.process.logs("an agent is here").await;
        let before = server.process.log().len();
        let mut proxy = haproxy(server.visitors(), option).await;
        proxy.is_content().await;
        for _ in 0..10 {
            let body = get(proxy.address, client.host()).await;
            assert_eq!(body.expect("an answer"), "through HAProxy");
        }
        assert_eq!(&server.process.log()[before..], "");
        assert!(server.process.runs());
    }
}

#[tokio::test]
async fn without_a_trusted_proxy_haproxy_gets_nobody_in() {
    let (relay, origin) = (relay_with(|_| {}).await, http("x").await);
    let agent = publish(Over::Quic, &relay, origin.address).await;
    let proxy = haproxy(relay.public, "send-proxy-v2").await;
    get(proxy.address, &agent.host().await)
        .await
        .expect_err("the header is no TLS");
}
