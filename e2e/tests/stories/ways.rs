//! Which connection carries the tunnel: the first that is welcome, and a better one when there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::agent::{Agent, config, new_key, start};
use e2e::false_relay::false_relay;
use e2e::firewall::{Firewall, between, firewall};
use e2e::origin::{Origin, echo, http};
use e2e::peer::{connect, hello};
use e2e::poll::{eventually, soon, until_ok};
use e2e::relay::{Relay, relay_with};
use e2e::stage::NEVER;
use e2e::transport::Over;
use e2e::visitor::{Visitor, certificate, get, visit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tunnel_client::config::{Config, Transport};
use tunnel_common::tls;
use tunnel_common::wire::code::Code;

const MS: Duration = Duration::from_millis(1);

/// A relay, a firewall before it, and an agent behind that.
struct Scene {
    relay: Relay,
    firewall: Firewall,
    agent: Agent,
    host: String,
    /// From the agent's start until it served.
    took: Duration,
    _origin: Origin,
}

/// An agent that publishes `origin`, behind a firewall that is prepared first.
async fn scene(
    origin: Origin,
    prepare: impl FnOnce(&Firewall),
    change: impl FnOnce(&mut Config),
) -> Scene {
    let relay = relay_with(|config| config.timeouts.quic.idle = NEVER).await;
    let firewall = firewall(relay.api).await;
    prepare(&firewall);
    scene_at(relay, firewall, origin, change).await
}

async fn scene_at(
    relay: Relay,
    firewall: Firewall,
    origin: Origin,
    change: impl FnOnce(&mut Config),
) -> Scene {
    let mut config = config(Over::Quic, &relay, new_key(), origin.address);
    config.transport = Transport::Any;
    config.relays[0].address = firewall.address.to_string().parse().expect("a relay");
    config.last_port = None;
    change(&mut config);
    let (agent, began) = (start(config), Instant::now());
    let host = agent.host().await;
    Scene {
        took: began.elapsed(),
        relay,
        firewall,
        agent,
        host,
        _origin: origin,
    }
}

/// Clocks that make a story short: a tunnel is in doubt after 450 ms, and dead after 2 s.
fn impatient(config: &mut Config) {
    config.timeouts.quic.keep_alive = 300 * MS;
    config.timeouts.quic.idle = 2000 * MS;
    config.timeouts.quic.handshake = 500 * MS;
    config.timeouts.quic_probe = 200 * MS;
}

async fn goes_to_and_fro(visitor: &mut Visitor, text: &[u8]) {
    visitor.write_all(text).await.expect("sends");
    let mut back = vec![0; text.len()];
    let reading = soon("the echo", visitor.read_exact(&mut back));
    reading.await.expect("comes back");
    assert_eq!(back, text);
}

/// Visitors who come one after the other, each with one request.
struct Stream {
    served: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    _coming: JoinSet<()>,
}

fn visitors(scene: &Scene) -> Stream {
    let (served, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (public, host) = (scene.relay.public, scene.host.clone());
    let mut coming = JoinSet::new();
    let counts = (served.clone(), failed.clone());
    coming.spawn(async move {
        loop {
            let outcome = async {
                let mut visitor = visit(public, &host).await?;
                visitor.write_all(b"?").await?;
                soon("an answer", visitor.read_u8()).await?;
                visitor.shutdown().await?;
                soon("the end", visitor.read(&mut [0])).await
            };
            let count = if outcome.await.is_ok() {
                &counts.0
            } else {
                &counts.1
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Stream {
        served,
        failed,
        _coming: coming,
    }
}

impl Stream {
    async fn goes_on(&self) {
        let before = self.served.load(Ordering::Relaxed);
        let more = || self.served.load(Ordering::Relaxed) > before + 20;
        eventually("visitors are served", more).await;
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn where_udp_is_swallowed_an_agent_serves_over_tcp_within_a_second() {
    let scene = scene(http("TCP").await, Firewall::swallows_udp, |_| {}).await;
    println!("served after {:?}", scene.took);
    assert!(scene.took < 1000 * MS, "{:?}", scene.took);
    let body = get(scene.relay.public, &scene.host).await;
    assert_eq!(body.expect("an answer"), "TCP");
}

#[tokio::test]
async fn where_udp_passes_the_tunnel_is_quic_and_what_raced_it_is_gone() {
    let all_at_once = |config: &mut Config| config.timeouts.head_start = Duration::ZERO;
    let scene = scene(http("UDP").await, |_| {}, all_at_once).await;
    let firewall = &scene.firewall;
    eventually("what raced it is gone", || firewall.open() == 0).await;
    let before = firewall.packets();
    let body = get(scene.relay.public, &scene.host).await;
    assert_eq!(body.expect("an answer"), "UDP");
    assert!(firewall.packets() > before, "not over QUIC");
}

#[tokio::test]
async fn an_agent_that_may_use_nothing_but_http2_sends_no_udp() {
    let only = |config: &mut Config| {
        config.transport = Transport::OnlyH2;
        config.timeouts.quic_probe = MS;
    };
    let scene = scene(http("TCP").await, |_| {}, only).await;
    assert_eq!(
        get(scene.relay.public, &scene.host).await.expect("answers"),
        "TCP"
    );
    eventually("the pool is complete", || scene.firewall.open() == 4).await;
    assert_eq!(scene.firewall.packets(), 0);
}

#[tokio::test]
async fn a_pool_goes_on_without_one_of_its_connections_and_replaces_it() {
    let only = |config: &mut Config| {
        config.transport = Transport::OnlyH2;
        config.pool_size = 3;
    };
    let scene = scene(echo().await, |_| {}, only).await;
    let firewall = &scene.firewall;
    eventually("the pool is complete", || firewall.open() == 3).await;
    for round in 1..=3 {
        firewall.cuts(1);
        goes_to_and_fro(&mut visit_soon(&scene).await, b"still there").await;
        let is_mended = || firewall.open() == 3 && firewall.opened() >= 3 + round;
        eventually("the pool is mended", is_mended).await;
    }
    firewall.cuts(3);
    scene.agent.is_cut_off().await;
    scene.agent.serves().await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"again").await;
}

/// A visit; one that met a connection which had just been cut is made again.
async fn visit_soon(scene: &Scene) -> Visitor {
    let visiting = async || visit(scene.relay.public, &scene.host).await;
    until_ok("a visit", visiting).await
}

#[tokio::test]
async fn when_udp_is_back_the_agent_returns_to_quic_and_nobody_notices() {
    let scene = scene(echo().await, Firewall::swallows_udp, impatient).await;
    let (firewall, public) = (&scene.firewall, scene.relay.public);
    let mut old = visit(public, &scene.host).await.expect("visits");
    goes_to_and_fro(&mut old, b"over TCP").await;
    let shown = certificate(&old);
    let visitors = visitors(&scene);
    visitors.goes_on().await;

    firewall.passes_udp();
    // The connection of the old visit stays, the others of the pool are left.
    eventually("the pool is left", || firewall.open() == 1).await;
    let packets = firewall.packets();
    visitors.goes_on().await;
    assert!(firewall.packets() > packets, "not over QUIC");
    goes_to_and_fro(&mut old, b"still over TCP").await;
    assert_eq!(visitors.failed(), 0);
    assert_eq!(firewall.open(), 1);
    let new = visit(public, &scene.host).await.expect("visits");
    assert_eq!(certificate(&new), shown);

    old.shutdown().await.expect("ends");
    assert_eq!(old.read(&mut [0]).await.expect("a clean end"), 0);
    eventually("the last connection is left", || firewall.open() == 0).await;
    visitors.goes_on().await;
    assert_eq!(visitors.failed(), 0);
}

#[tokio::test]
async fn a_quic_tunnel_whose_packets_vanish_is_replaced_before_it_is_dead() {
    let scene = scene(
        echo().await,
        |_| {},
        |config| {
            impatient(config);
            // Later than the story's end.
            config.timeouts.quic.idle = NEVER;
        },
    )
    .await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"over QUIC").await;
    scene.firewall.swallows_udp();
    let began = Instant::now();
    eventually("HTTP/2 serves", || scene.firewall.open() == 4).await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"over TCP").await;
    println!("served again after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_pool_whose_packets_vanish_is_replaced_before_it_is_dead() {
    let scene = scene(echo().await, Firewall::swallows_udp, |config| {
        impatient(config);
        config.transport = Transport::OnlyH2;
    })
    .await;
    let firewall = &scene.firewall;
    eventually("the pool is complete", || firewall.open() == 4).await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"at first").await;
    firewall.freezes_tcp();
    let began = Instant::now();
    eventually("another pool serves", || firewall.opened() == 8).await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"again").await;
    println!("served again after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_network_that_passes_a_few_packets_does_not_keep_the_agent_from_serving() {
    let scene = scene(
        http("TCP in the end").await,
        |firewall| firewall.passes_of_each_flow(12),
        |config| {
            impatient(config);
            config.timeouts.quic_probe = 60_000 * MS;
        },
    )
    .await;
    eventually("it settles for TCP", || scene.firewall.open() == 4).await;
    let body = until_ok("an answer", async || {
        get(scene.relay.public, &scene.host).await
    });
    assert_eq!(body.await, "TCP in the end");
}

/// An agent whose QUIC leads to a relay that welcomes it and then says no more.
async fn half_a_relay(prepare: impl FnOnce(&Firewall)) -> (Scene, JoinSet<()>) {
    let key = new_key();
    let identity = tls::self_signed(&key, &[]).expect("a certificate");
    let quiet = false_relay(tls::self_signed(&key, &[]).expect("a certificate"));
    let relay = relay_with(|config| config.identity = Arc::new(identity).into()).await;
    let firewall = between(relay.api, quiet.api).await;
    prepare(&firewall);
    let mut welcoming = JoinSet::new();
    welcoming.spawn(async move { quiet.welcomes_and_grants_nothing().await });
    let change = |config: &mut Config| {
        impatient(config);
        config.timeouts.welcome = 500 * MS;
    };
    let scene = scene_at(relay, firewall, echo().await, change).await;
    (scene, welcoming)
}

#[tokio::test]
async fn a_relay_that_welcomes_over_quic_and_grants_nothing_there_serves_over_tcp() {
    let (scene, _welcoming) = half_a_relay(|_| {}).await;
    goes_to_and_fro(&mut visit_soon(&scene).await, b"over TCP").await;
}

#[tokio::test]
async fn a_return_to_quic_that_fails_at_the_last_step_cuts_nobody() {
    let (scene, _welcoming) = half_a_relay(Firewall::swallows_udp).await;
    let mut old = visit(scene.relay.public, &scene.host)
        .await
        .expect("visits");
    let visitors = visitors(&scene);
    visitors.goes_on().await;
    scene.firewall.passes_udp();
    scene.agent.is_cut_off().await;
    scene.agent.serves().await;
    visitors.goes_on().await;
    goes_to_and_fro(&mut old, b"still there").await;
    assert_eq!(visitors.failed(), 0);
}

#[tokio::test]
async fn who_is_welcome_and_wishes_for_nothing_is_in_nobodys_way_and_is_let_go() {
    let relay = relay_with(|config| config.timeouts.hello = 300 * MS).await;
    let peer = connect(Over::Quic, relay.api, &new_key(), 10).await;
    let mut silent = hello(1, 0);
    silent.wanted.clear();
    let (_control, welcome) = peer.register(silent).await;
    assert!(welcome.granted.is_empty());
    let refused = visit(relay.public, &format!("{}.localhost", peer.id)).await;
    let alert = e2e::visitor::alert(&refused.expect_err("nobody serves"));
    assert_eq!(alert, Some(rustls::AlertDescription::UnrecognisedName));
    assert_eq!(peer.closed_with().await, Code::None);
}
