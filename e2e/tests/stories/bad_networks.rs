//! The two binaries over a bad network.
//!
//! ```text
//! near: local service, client ── the line ── far: server, visitor
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::netsim::download::Download;
use e2e::netsim::programs::{publish_over, server};
use e2e::netsim::scene::scene;
use e2e::netsim::{Line, Loss, NEAR, line};
use e2e::origin::{Origin, origin_on};
use e2e::pair::{Client, Server};
use e2e::poll::{soon, until_ok};
use e2e::process::folder;
use e2e::transport::Over;
use e2e::visitor::{Visitor, handshake, tls_config};
use rstest::rstest;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MB: usize = 1_000_000;
const MS: Duration = Duration::from_millis(1);
/// Another address of the near end.
const ANOTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// How long a transfer may stand still while the tunnel finds out what happened.
const STALL: Duration = Duration::from_secs(5);

/// Bytes that are nowhere the same; the same each time.
fn noise(length: usize) -> Vec<u8> {
    let words = (0..length / 8 + 1).map(|n| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut noise: Vec<u8> = words.flat_map(u64::to_be_bytes).collect();
    noise.truncate(length);
    noise
}

/// A local service near that sends `length` bytes to whoever says a byte, and ends.
fn giver(line: &Line, length: usize) -> Origin {
    let listener = line.near().tcp_listener(Ipv4Addr::LOCALHOST);
    origin_on(
        listener.expect("binds"),
        move |mut stream: TcpStream| async move {
            stream.read_u8().await.expect("a request");
            // Whoever breaks off is the story's own matter.
            let _ = stream.write_all(&noise(length)).await;
            let _ = stream.shutdown().await;
        },
    )
}

/// A local service near that takes what comes to its end, and answers with how much it was, or with
/// 0 if it was not the expected noise.
fn taker(line: &Line) -> Origin {
    let listener = line.near().tcp_listener(Ipv4Addr::LOCALHOST);
    origin_on(listener.expect("binds"), async |mut stream: TcpStream| {
        let mut all = vec![];
        stream.read_to_end(&mut all).await.expect("a clean end");
        let length = if all == noise(all.len()) {
            all.len()
        } else {
            0
        };
        stream.write_u64(length as u64).await.expect("answers");
    })
}

async fn started(over: Over, line: &Line, local: SocketAddr) -> (Server, Client) {
    let server = server(line, &[]).await;
    let client = publish_over(over, line, &server, local, &[], folder()).await;
    (server, client)
}

async fn visit(line: &Line, server: &Server, client: &Client) -> Visitor {
    let visiting = try_visit(line, server, client).await;
    visiting.expect("a handshake")
}

async fn try_visit(line: &Line, server: &Server, client: &Client) -> io::Result<Visitor> {
    let socket = line.far().tcp_socket()?;
    let tcp = socket.connect(server.visitors()).await?;
    tcp.set_nodelay(true)?;
    handshake(tcp, client.host(), tls_config(&[b"http/1.1"])).await
}

/// Downloads to the clean end, telling `at` how much has come; the longest pause between two pieces.
async fn download(visitor: &mut Visitor, length: usize, mut at: impl FnMut(usize)) -> Duration {
    visitor.write_u8(1).await.expect("asks");
    let (mut all, mut pause, mut last) = (Vec::with_capacity(length), Duration::ZERO, None);
    loop {
        let reading = visitor.read_buf(&mut all);
        let got = soon("more comes", reading).await.expect("no error");
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            pause = pause.max(now - last);
        }
        if got == 0 {
            break;
        }
        at(all.len());
    }
    assert!(all == noise(length), "{} of {length} bytes", all.len());
    pause
}

/// Something to be done once, when the transfer has come so far.
fn once(after: usize, act: impl FnOnce()) -> impl FnMut(usize) {
    let mut act = Some(act);
    move |so_far| {
        if so_far >= after
            && let Some(act) = act.take()
        {
            act();
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_visitor_gets_every_byte_over_a_slow_and_lossy_line(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    line.both(|conditions| {
        conditions.delay = 25 * MS;
        conditions.loss = Loss::Random(0.02);
    });
    let origin = giver(&line, 10 * MB);
    let (server, client) = started(over, &line, origin.address).await;
    let mut visitor = visit(&line, &server, &client).await;
    download(&mut visitor, 10 * MB, |_| {}).await;
    assert!(line.up().counts().lost > 0 && line.down().counts().lost > 0);
}

#[tokio::test]
async fn a_download_goes_on_when_the_nat_takes_another_port_and_another_address() {
    let Some(line) = line() else { return };
    line.nat().on();
    line.both(|conditions| {
        conditions.delay = 10 * MS;
        conditions.bits_per_second = Some(50_000_000);
    });
    let origin = giver(&line, 10 * MB);
    let (server, client) = started(Over::Quic, &line, origin.address).await;
    let mut visitor = visit(&line, &server, &client).await;
    let mut port = once(3 * MB, || line.nat().rebind());
    let mut address = once(6 * MB, || line.nat().rebind_address());
    let act = |so_far| {
        port(so_far);
        address(so_far);
    };
    let pause = download(&mut visitor, 10 * MB, act).await;
    assert!(pause < STALL, "{pause:?}");
    let swallowed = line.down().counts().swallowed;
    assert!(swallowed > 0, "the relay wrote to no port that was gone");
}

#[tokio::test]
async fn a_download_goes_on_when_the_agent_itself_gets_another_address() {
    let Some(line) = line() else { return };
    line.both(|conditions| {
        conditions.delay = 10 * MS;
        conditions.bits_per_second = Some(50_000_000);
    });
    let origin = giver(&line, 10 * MB);
    let (server, client) = started(Over::Quic, &line, origin.address).await;
    let mut visitor = visit(&line, &server, &client).await;
    let away = once(3 * MB, || {
        line.near_loses(NEAR);
        line.near_gets(ANOTHER);
    });
    let pause = download(&mut visitor, 10 * MB, away).await;
    println!("the longest pause: {pause:?}");
    assert!(pause < STALL, "{pause:?}");
    assert_eq!(client.tunnels_over("QUIC"), 1);
}

/// TCP does not move with an address: what was under way breaks.
#[tokio::test]
async fn an_agent_over_tcp_comes_back_by_itself_when_the_nat_takes_another_address() {
    let Some(line) = line() else { return };
    line.nat().on();
    line.both(|conditions| conditions.delay = 10 * MS);
    let origin = giver(&line, MB);
    let (server, client) = started(Over::H2, &line, origin.address).await;
    let mut cut = visit(&line, &server, &client).await;
    line.nat().rebind_address();
    let since = Instant::now();
    let ended = soon("the visit ends", cut.read(&mut [0])).await;
    assert!(ended.is_err(), "cut, and not ended: {ended:?}");
    let back = until_ok("the agent is back", async || {
        try_visit(&line, &server, &client).await
    });
    let mut visitor = back.await;
    println!("back after {:?}", since.elapsed());
    download(&mut visitor, MB, |_| {}).await;
}

#[tokio::test]
async fn an_upload_goes_on_when_the_nat_takes_another_port() {
    let Some(line) = line() else { return };
    line.nat().on();
    line.both(|conditions| {
        conditions.delay = 10 * MS;
        conditions.bits_per_second = Some(50_000_000);
    });
    let origin = taker(&line);
    let (server, client) = started(Over::Quic, &line, origin.address).await;
    let mut visitor = visit(&line, &server, &client).await;
    let mut sent = 0;
    for piece in noise(10 * MB).chunks(MB) {
        if sent == 5 * MB {
            line.nat().rebind();
        }
        let writing = visitor.write_all(piece);
        soon("more is taken", writing).await.expect("no error");
        sent += piece.len();
    }
    visitor.shutdown().await.expect("ends");
    let taken = soon("the answer", visitor.read_u64()).await;
    assert_eq!(taken.expect("no error"), 10 * MB as u64);
    let swallowed = line.down().counts().swallowed;
    assert!(swallowed > 0, "the relay wrote to no port that was gone");
}

#[rstest]
#[tokio::test]
async fn a_download_goes_on_when_big_packets_begin_to_vanish(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    line.both(|conditions| {
        conditions.delay = 10 * MS;
        conditions.bits_per_second = Some(50_000_000);
    });
    let origin = giver(&line, 10 * MB);
    let (server, client) = started(over, &line, origin.address).await;
    let mut visitor = visit(&line, &server, &client).await;
    let hole = once(4 * MB, || {
        line.both(|conditions| conditions.largest_packet = Some(1300));
    });
    let pause = download(&mut visitor, 10 * MB, hole).await;
    assert!(pause < STALL, "{pause:?}");
    if over == Over::Quic {
        assert!(line.up().counts().swallowed > 0, "no packet was that big");
    }
}

/// A line on which the end of this download takes longer than a visit must be silent to be over.
const NARROW_BITS: u64 = 5_000_000;
const LEFT_BEHIND: u64 = 3_000_000;

#[rstest]
#[tokio::test]
async fn an_agent_that_ends_stays_until_the_last_of_what_it_has_sent_is_through_a_narrow_line(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    line.both(|conditions| conditions.bits_per_second = Some(NARROW_BITS));
    let mut scene = scene(line, &over.with(&[])).await;
    let downloading = Download::start(&scene.entrance, LEFT_BEHIND).await;
    let downloading = downloading.expect("begins");
    scene.client.process.signal(Signal::TERM);
    downloading.ends().await.expect("every byte comes");
    assert_eq!(scene.client.process.exit_code().await, 0);
}
