//! However a visitor's hello is cut, padded or sent, he is routed and answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use e2e::agent::{Agent, new_key, publish};
use e2e::arrival::{arrival, knock};
use e2e::hello::{Held, hello, hello_with, hold, in_tiny_records, in_two_records, message, record};
use e2e::origin::{Origin, http};
use e2e::peer::{connect, hello as agents_hello};
use e2e::relay::{Relay, relay};
use e2e::transport::Over;
use e2e::visitor::{get, get_on, say, tls_config, tls_config_of};
use rstest::rstest;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{ClientConfig, NamedGroup};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tunnel_common::tls;

/// A fatal decode_error, as it goes over the wire.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];
/// Connections at one time where a story makes hundreds.
const AT_ONCE: usize = 50;

struct World {
    relay: Relay,
    host: String,
    _agent: Agent,
    _origin: Origin,
}

async fn world(over: Over) -> World {
    let (relay, origin) = (relay().await, http("answered").await);
    let agent = publish(over, &relay, origin.address).await;
    World {
        host: agent.host().await,
        relay,
        _agent: agent,
        _origin: origin,
    }
}

impl World {
    async fn hold(&self, tls: Arc<ClientConfig>) -> Held {
        let held = hold(self.relay.public, &self.host, tls).await;
        held.expect("a hello")
    }

    async fn is_answered(&self, held: Held) {
        let mut visitor = held.answered().await.expect("the handshake");
        let body = get_on(&mut visitor.tls, &self.host).await;
        assert_eq!(body.expect("an answer"), "answered");
    }
}

/// As visitors were before post-quantum keys: a hello of some 200 bytes.
fn small_tls() -> Arc<ClientConfig> {
    let mut provider = (*tls::provider()).clone();
    provider.kx_groups = vec![kx_group::X25519];
    tls_config_of(Arc::new(provider), &[b"http/1.1"])
}

/// A hello of about `bytes`: `http/1.1` behind a long list of protocols that nobody speaks.
fn padded_tls(bytes: usize) -> Arc<ClientConfig> {
    let ordinary = hello("padded.localhost").len();
    let filler = [b'x'; 250];
    let mut protocols = vec![&filler[..]; bytes.saturating_sub(ordinary) / (filler.len() + 1)];
    protocols.push(b"http/1.1");
    tls_config(&protocols)
}

#[rstest]
#[tokio::test]
async fn a_hello_of_one_byte_per_segment_is_answered(#[values(Over::Quic, Over::H2)] over: Over) {
    let world = world(over).await;
    for tls in [small_tls(), tls_config(&[b"http/1.1"])] {
        let mut held = world.hold(tls).await;
        for byte in held.hello.clone() {
            held.send(&[byte]).await.expect("sends");
            // Lets the relay, in this runtime too, read what has come.
            tokio::task::yield_now().await;
        }
        world.is_answered(held).await;
    }
}

/// Cuts the hello into two records at every offset, each a connection of its own.
async fn cut_everywhere(over: Over, tls: &Arc<ClientConfig>) {
    let world = world(over).await;
    let length = message(&hello_with(&world.host, tls.clone())).len();
    let offsets: Vec<_> = (1..length).collect();
    for some in offsets.chunks(AT_ONCE) {
        let mut visits = JoinSet::new();
        for &at in some {
            let visit = cut_at(world.relay.public, world.host.clone(), tls.clone(), at);
            visits.spawn(async move { (at, visit.await) });
        }
        while let Some(visit) = visits.join_next().await {
            let (at, body) = visit.expect("no panic");
            let body = body.unwrap_or_else(|error| panic!("cut at {at}: {error}"));
            assert_eq!(body, "answered", "cut at {at}");
        }
    }
}

async fn cut_at(
    relay: SocketAddr,
    host: String,
    tls: Arc<ClientConfig>,
    at: usize,
) -> io::Result<String> {
    let mut held = hold(relay, &host, tls).await?;
    let records = in_two_records(&held.hello, at);
    held.send(&records).await?;
    let mut visitor = held.answered().await?;
    get_on(&mut visitor.tls, &host).await
}

#[rstest]
#[tokio::test]
async fn a_hello_in_two_records_is_answered_wherever_it_is_cut(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    cut_everywhere(over, &small_tls()).await;
}

#[rstest]
#[tokio::test]
async fn a_post_quantum_hello_in_two_records_is_answered_wherever_it_is_cut(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    cut_everywhere(over, &tls_config(&[b"http/1.1"])).await;
}

#[rstest]
#[tokio::test]
async fn a_hello_in_records_of_one_byte_is_answered(#[values(Over::Quic, Over::H2)] over: Over) {
    let world = world(over).await;
    for tls in [small_tls(), tls_config(&[b"http/1.1"])] {
        let mut held = world.hold(tls).await;
        let records = in_tiny_records(&held.hello);
        held.send(&records).await.expect("sends");
        world.is_answered(held).await;
    }
}

#[rstest]
#[tokio::test]
async fn an_empty_handshake_record_before_within_or_instead_of_a_hello_is_a_decode_error(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let world = world(over).await;
    let hello = hello(&world.host);
    let (first, second) = message(&hello).split_at(100);
    let empty = record(&[]);
    let within = [record(first), empty.clone(), record(second)].concat();
    let before = [&empty[..], &hello].concat();
    for bytes in [empty, before, within] {
        let answer = say(world.relay.public, &bytes).await.expect("an alert");
        assert_eq!(answer, DECODE_ERROR);
    }
}

#[rstest]
#[tokio::test]
async fn a_post_quantum_hello_in_two_segments_with_a_pause_between_them_is_answered(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let world = world(over).await;
    let mut held = world.hold(tls_config(&[b"http/1.1"])).await;
    let groups = tls::provider().kx_groups.clone();
    assert_eq!(groups[0].name(), NamedGroup::X25519MLKEM768);
    assert!(held.hello.len() > 1200, "{} bytes", held.hello.len());

    let hello = held.hello.clone();
    let (first, second) = hello.split_at(hello.len() / 2);
    held.send(first).await.expect("sends");
    // The pause: another visitor comes, and is served meanwhile.
    let body = get(world.relay.public, &world.host).await;
    assert_eq!(body.expect("an answer"), "answered");
    held.send(second).await.expect("sends");
    world.is_answered(held).await;
}

#[rstest]
#[tokio::test]
async fn hellos_of_up_to_fifteen_and_a_half_kilobytes_are_answered(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let world = world(over).await;
    for bytes in [4_000, 8_000, 12_000, 15_500] {
        let mut held = world.hold(padded_tls(bytes)).await;
        let length = held.hello.len();
        assert!(length.abs_diff(bytes) < 300, "{length} bytes for {bytes}");
        let hello = held.hello.clone();
        held.send(&hello).await.expect("sends");
        world.is_answered(held).await;
    }
}

#[rstest]
#[tokio::test]
async fn what_follows_the_hello_in_one_segment_reaches_the_agent_to_the_byte(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, key) = (relay().await, new_key());
    let peer = connect(over, relay.api, &key, 10).await;
    let (_control, _) = peer.register(agents_hello(1, 0)).await;
    let surplus: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    for cut in [hello(&peer.host()), in_tiny_records(&hello(&peer.host()))] {
        let sent = [&cut[..], &surplus].concat();
        let mut visitor = knock(relay.public, &sent).await.expect("connects");
        let mut arrived = arrival(&peer).await;
        assert_eq!(arrived.bytes(sent.len()).await, sent);
        visitor.shutdown().await.expect("ends");
        let rest = arrived.recv.read(&mut [0]).await.expect("a clean end");
        assert_eq!(rest, 0, "not a byte more");
    }
}
