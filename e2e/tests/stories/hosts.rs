//! What happens to the agent's own host and network, with the clocks of the binaries: its address changes, it
//! sleeps, its line is cut and heals, it is plugged in again.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::netsim::programs::{publish, publish_over, server};
use e2e::netsim::traffic::{Entrance, Requests, Sessions, near_echo};
use e2e::netsim::{Line, NEAR, line};
use e2e::origin::Origin;
use e2e::pair::{Client, Server};
use e2e::poll::{eventually, until_ok};
use e2e::process::folder;
use e2e::transport::Over;
use rstest::rstest;
use rustix::process::Signal;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Another address of the near end.
const MOVED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// How often a visitor comes.
const BEAT: Duration = Duration::from_millis(50);
/// How many visitors stay.
const STAYING: usize = 4;
/// Longer than any tunnel takes to be given up for dead at either end.
const OUTAGE: Duration = Duration::from_secs(12);
/// Longer than a busy machine holds the agent up, and not long enough for the relay to give it up.
const NAP: Duration = Duration::from_millis(4500);
/// Within this time the agent serves when nothing keeps it any more.
const PROMISED: Duration = Duration::from_secs(5);

/// Both programs and a local service, at the two ends of a line.
struct Scene {
    line: Arc<Line>,
    entrance: Entrance,
    client: Client,
    server: Server,
    _origin: Origin,
}

/// An agent that may choose its transport, and has chosen QUIC, or must use HTTP/2.
async fn scene(over: Over, line: Line) -> Scene {
    line.both(|conditions| conditions.delay = 10 * MS);
    let line = Arc::new(line);
    let origin = near_echo(&line);
    let server = server(&line, &[]).await;
    let client = match over {
        Over::Quic => publish(&line, &server, origin.address, &[], folder()).await,
        Over::H2 => publish_over(over, &line, &server, origin.address, &[], folder()).await,
    };
    client.process.logs(over.logged()).await;
    Scene {
        entrance: Entrance::new(&line, &server, &client),
        line,
        client,
        server,
        _origin: origin,
    }
}

impl Scene {
    /// The near end has another address from now on.
    fn moves(&self, from: Ipv4Addr, to: Ipv4Addr) -> Instant {
        self.line.near_loses(from);
        self.line.near_gets(to);
        Instant::now()
    }

    fn is_cut(&self, cut: bool) -> Instant {
        self.line.both(|conditions| conditions.cut = cut);
        Instant::now()
    }

    /// Waits until a visitor is served, and says how long after `since` that was.
    async fn serves(&self, what: &str, since: Instant) -> Duration {
        let asking = async || self.entrance.ask().await;
        let took = until_ok("a visitor is served", asking).await - since;
        println!("{what}: served after {took:?}");
        took
    }

    /// Waits until a QUIC tunnel serves in the place of the first.
    async fn is_quic_again(&self, since: Instant) {
        let is_quic = || self.client.tunnels_over("QUIC") > 1;
        eventually("QUIC serves again", is_quic).await;
        let took = since.elapsed();
        println!("QUIC serves again after {took:?}");
        assert!(took < PROMISED, "{took:?}");
    }
}

/// Waits until so much time has passed since an outage began.
async fn lasts(since: Instant, long: Duration) {
    eventually("the outage lasts", || since.elapsed() >= long).await;
}

#[tokio::test]
async fn when_the_agent_gets_another_address_visits_over_quic_go_on() {
    let Some(line) = line() else { return };
    let scene = scene(Over::Quic, line).await;
    let sessions = Sessions::start(&scene.entrance, STAYING)
        .await
        .expect("visits");
    let requests = Requests::start(&scene.entrance, BEAT);
    for (from, to) in [(NEAR, MOVED), (MOVED, NEAR)] {
        let moved = scene.moves(from, to);
        let is_served = || requests.first_served(moved).is_some();
        eventually("visitors are served", is_served).await;
        let answers = sessions.answers();
        let more = || sessions.answers() >= answers + 5 * STAYING as u64;
        eventually("those who stay are served", more).await;
        println!(
            "moved: the longest wait {:?}",
            requests.longest_wait_since(moved)
        );
    }
    assert!(sessions.cuts().is_empty(), "{:?}", sessions.cuts());
    assert_eq!(requests.failed(), 0);
    assert_eq!(scene.client.tunnels_over("QUIC"), 1);
    assert_eq!(scene.client.tunnels_over("HTTP/2"), 0);
    scene.client.process.logs("the tunnel moves").await;
}

#[tokio::test]
async fn when_the_agent_loses_its_address_a_tunnel_over_tcp_is_replaced_at_once() {
    let Some(line) = line() else { return };
    let scene = scene(Over::H2, line).await;
    eventually("the pool is complete", || {
        scene.client.tunnels_over("HTTP/2") == 4
    })
    .await;
    let moved = scene.moves(NEAR, MOVED);
    eventually("another pool serves", || {
        scene.client.tunnels_over("HTTP/2") > 4
    })
    .await;
    let took = scene.serves("lost its address over TCP", moved).await;
    assert!(took < 2 * SECOND, "{took:?}");
}

#[rstest]
#[tokio::test]
async fn an_agent_that_was_stopped_serves_soon_after_it_goes_on(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    let scene = scene(over, line).await;
    scene.client.process.freezes().await;
    lasts(Instant::now(), OUTAGE).await;
    scene.client.process.signal(Signal::CONT);
    let since = Instant::now();
    let took = scene.serves("stopped", since).await;
    assert!(took < PROMISED, "{took:?}");
    scene.client.process.logs("the process was stopped").await;
    if over == Over::Quic {
        scene.is_quic_again(since).await;
    }
}

#[rstest]
#[tokio::test]
async fn when_a_line_that_was_cut_heals_the_agent_serves_soon_and_over_quic_if_it_did(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    let scene = scene(over, line).await;
    let cut = scene.is_cut(true);
    lasts(cut, OUTAGE).await;
    let healed = scene.is_cut(false);
    let took = scene.serves("healed", healed).await;
    assert!(took < PROMISED, "{took:?}");
    if over == Over::Quic {
        scene.is_quic_again(healed).await;
    }
}

#[tokio::test]
async fn an_agent_that_was_stopped_for_a_moment_keeps_its_tunnel_and_its_visits() {
    let Some(line) = line() else { return };
    let scene = scene(Over::Quic, line).await;
    let sessions = Sessions::start(&scene.entrance, STAYING).await;
    let sessions = sessions.expect("visits");
    let since = Instant::now();
    scene.client.process.freezes().await;
    lasts(since, NAP).await;
    let answers = sessions.answers();
    scene.client.process.signal(Signal::CONT);
    scene.client.process.logs("the process was stopped").await;
    let more = || sessions.answers() >= answers + 20 * STAYING as u64;
    eventually("those who stay are served", more).await;
    assert!(sessions.cuts().is_empty(), "{:?}", sessions.cuts());
    assert_eq!(scene.client.tunnels_over("QUIC"), 1);
    assert_eq!(scene.client.tunnels_over("HTTP/2"), 0);
}

#[tokio::test]
async fn an_agent_that_waits_to_dial_dials_at_once_when_its_network_changes() {
    let Some(line) = line() else { return };
    let scene = scene(Over::H2, line).await;
    // Without a route each attempt fails at once, so that the waits grow.
    scene.line.near_loses(NEAR);
    let waits = || scene.client.process.log().matches("trying ").count();
    eventually("the waits have grown", || waits() >= 4).await;
    scene.line.near_gets(MOVED);
    let took = scene.serves("plugged in", Instant::now()).await;
    assert!(took < 2 * SECOND, "{took:?}");
}

#[rstest]
#[tokio::test]
async fn an_agent_serves_soon_after_a_relay_that_was_stopped_goes_on(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let Some(line) = line() else { return };
    let scene = scene(over, line).await;
    scene.server.process.freezes().await;
    lasts(Instant::now(), OUTAGE).await;
    scene.server.process.signal(Signal::CONT);
    let took = scene.serves("the relay goes on", Instant::now()).await;
    assert!(took < 2 * PROMISED, "{took:?}");
}
