//! Agents that come over TCP: at the API port, or where nothing but the public port is reached.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use e2e::agent::{Agent, config, new_key, same_key, start};
use e2e::arrival::arrival;
use e2e::hello::hello_with;
use e2e::origin::{Origin, echo, http, origin, reset};
use e2e::pair;
use e2e::peer::{connect, hello as agents};
use e2e::poll::{soon, until_ok};
use e2e::ports;
use e2e::process::{self, folder};
use e2e::relay::{Relay, relay, relay_with};
use e2e::stage::{Stage, drain, drain_to_end, drain_to_reset, pour, sip, stage_with};
use e2e::visitor::{get, tls_config, visit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tunnel_client::config::{Config, EndpointConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_common::wire::frame::EndpointRef;
use tunnel_server::admission::allow_list::AllowList;
use tunnel_server::admission::list_file;

/// UDP that is not answered is given up so soon.
const IMPATIENT: Duration = Duration::from_millis(100);
const BULK: usize = 8 << 20;

/// Makes the agent dial `address` instead, where no UDP is answered.
fn redirected(config: &mut Config, address: &str) {
    config.relay = address.parse().expect("an address");
    config.timeouts.quic.handshake = IMPATIENT;
    config.last_port = None;
}

/// An agent that finds nothing but the public port of `relay`.
async fn publish(relay: &Relay, origin: SocketAddr) -> Agent {
    let mut config = config(relay, new_key(), origin);
    redirected(&mut config, &relay.public.to_string());
    let agent = start(config);
    agent.serves().await;
    agent
}

/// A whole stage whose tunnel is HTTP/2 through the public port.
async fn stage() -> Stage {
    let public = ports::tcp();
    let address = public.address();
    stage_with(
        |config| {
            config.bind_addr = address.ip();
            config.pub_port = address.port();
        },
        |config| redirected(config, &address.to_string()),
    )
    .await
}

/// Passes TCP on to `to`, and no UDP.
async fn tcp_only(to: SocketAddr) -> Origin {
    origin(move |mut near: TcpStream| async move {
        let mut far = TcpStream::connect(to).await.expect("connects");
        // Breaks off with either end.
        let _ = copy_bidirectional(&mut near, &mut far).await;
    })
    .await
}

#[tokio::test]
async fn an_agent_that_reaches_nothing_but_the_public_port_serves_visitors_there() {
    let (relay, origin) = (relay().await, http("one port").await);
    let by_address = publish(&relay, origin.address).await;
    let mut config = config(&relay, new_key(), origin.address);
    redirected(&mut config, &format!("localhost:{}", relay.public.port()));
    let by_name = start(config);
    for agent in [by_address, by_name] {
        let body = get(relay.public, &agent.host().await).await;
        assert_eq!(body.expect("an answer"), "one port");
        agent.stop().await;
    }
}

#[tokio::test]
async fn an_agent_whose_udp_is_lost_comes_over_tcp_to_the_same_port() {
    let (relay, origin) = (relay().await, http("no UDP").await);
    let filtered = tcp_only(relay.api).await;
    let mut config = config(&relay, new_key(), origin.address);
    redirected(&mut config, &filtered.address.to_string());
    let agent = start(config);
    let body = get(relay.public, &agent.host().await).await;
    assert_eq!(body.expect("an answer"), "no UDP");
}

#[tokio::test]
async fn where_the_relays_port_is_closed_the_last_one_is_tried() {
    let (relay, origin) = (relay().await, http("last").await);
    let closed = ports::tcp();
    let mut config = config(&relay, new_key(), origin.address);
    redirected(&mut config, &format!("127.0.0.1:{}", closed.port));
    config.last_port = Some(relay.public.port());
    let agent = start(config);
    let body = get(relay.public, &agent.host().await).await;
    assert_eq!(body.expect("an answer"), "last");
}

#[tokio::test]
async fn a_relay_with_another_key_is_no_more_believed_over_tcp() {
    let (relay, other, origin) = (relay().await, relay().await, http("x").await);
    let honest = relay_with(|_| {}).await;
    let filtered = tcp_only(other.api).await;
    let mut config = config(&relay, new_key(), origin.address);
    redirected(&mut config, &filtered.address.to_string());
    config.trust = RelayTrust::Pinned(honest.fingerprint);
    config.last_port = Some(honest.public.port());
    let agent = start(config);
    // The wrong one was asked first and refused: the agent went on to the right one.
    let host = agent.host().await;
    assert!(get(other.public, &host).await.is_err());
    assert_eq!(get(honest.public, &host).await.expect("an answer"), "x");
}

#[tokio::test]
async fn bytes_arrive_as_they_were_sent_both_ways_at_once() {
    let (relay, origin) = (relay().await, echo().await);
    let agent = publish(&relay, origin.address).await;
    let host = agent.host().await;
    let visits = (0..20).map(|seed: u8| {
        let host = host.clone();
        async move {
            let visitor = visit(relay.public, &host).await.expect("visits");
            let (mut read, mut write) = tokio::io::split(visitor);
            let sent: Vec<u8> = (0..BULK / 8)
                .map(|at| (at as u8).wrapping_mul(seed | 1))
                .collect();
            let mut got = vec![];
            let sending = async {
                write.write_all(&sent).await.expect("takes all");
                write.shutdown().await.expect("ends");
            };
            let receiving = read.read_to_end(&mut got);
            let (_, received) = tokio::join!(sending, receiving);
            received.expect("ends cleanly");
            assert!(got == sent, "visit {seed}");
        }
    });
    let mut running = tokio::task::JoinSet::new();
    visits.for_each(|visit| drop(running.spawn(visit)));
    while let Some(ended) = soon("the visits", running.join_next()).await {
        ended.expect("no panic");
    }
}

#[tokio::test]
async fn ends_pass_as_ends_and_resets_as_resets() {
    let mut stage = stage().await;
    // The visitor ends first, a long answer follows.
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"?").await.expect("writes");
    visitor.shutdown().await.expect("ends");
    sip(&mut local, 1).await;
    assert_eq!(drain_to_end(&mut local).await, 0);
    let answering = async {
        pour(&mut local, BULK).await.expect("takes all");
        local.shutdown().await.expect("ends");
    };
    let ((), heard) = tokio::join!(answering, drain_to_end(&mut visitor));
    assert_eq!(heard, BULK);

    // The local service breaks off in mid-answer.
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 1000).await.expect("writes");
    sip(&mut visitor, 1000).await;
    reset(local);
    let (bytes, end) = drain(&mut visitor).await;
    assert!(bytes == 0 && end.is_err(), "{bytes} bytes, then {end:?}");

    // The visitor breaks off.
    let (visitor, mut local) = stage.visit().await;
    let (tcp, _) = visitor.into_inner();
    reset(tcp);
    drain_to_reset(&mut local).await;
}

#[tokio::test]
async fn a_relay_that_ends_is_left_and_found_again() {
    let (api, public, data, origin) = (ports::udp(), ports::tcp(), folder(), http("again").await);
    let flags = pair::at(api.port, public.port, data.path());
    let first = pair::server_at(&flags).await;
    let endpoint = EndpointConfig::new(new_key(), origin.address.to_string().parse().expect("one"));
    let mut config = Config::new("127.0.0.1".parse().expect("a relay"), endpoint);
    redirected(&mut config, &public.address().to_string());
    let agent = start(config);
    let host = agent.host().await;
    let mut process = first.process;
    process.signal(rustix::process::Signal::KILL);
    process.ends().await;
    agent.is_cut_off().await;
    let second = pair::server_at(&flags).await;
    agent.serves().await;
    let body = get(second.visitors(), &host).await;
    assert_eq!(body.expect("an answer"), "again");
}

#[tokio::test]
async fn a_refusal_is_heard_over_tcp_as_well_and_so_is_a_change_of_mind() {
    let (files, origin, key) = (folder(), http("x").await, new_key());
    let list = files.path().join("allowed_clients");
    let admission = AllowList::load(vec![list.clone()], Default::default(), "server allow");
    let admission = admission.expect("reads").asked_again_after(IMPATIENT);
    let relay = relay_with(|config| config.admission = Arc::new(admission)).await;
    let mut config = config(&relay, same_key(&key), origin.address);
    redirected(&mut config, &relay.public.to_string());
    let agent = start(config);
    let label = tunnel_common::key::fingerprint(&key).label();
    list_file::allow(&list, label, "").expect("writes");
    let host = agent.host().await;
    assert_eq!(get(relay.public, &host).await.expect("an answer"), "x");
    list_file::deny(&list, label).expect("writes");
    agent.is_cut_off().await;
    list_file::allow(&list, label, "").expect("writes");
    agent.serves().await;
}

#[tokio::test]
async fn a_second_identity_is_proved_over_tcp_too() {
    let (relay, origin) = (relay().await, http("x").await);
    let (first, second) = (new_key(), new_key());
    let mut config = config(&relay, first, origin.address);
    redirected(&mut config, &relay.public.to_string());
    config.second = Some(EndpointConfig {
        name: EndpointRef::secondary(),
        ..EndpointConfig::new(same_key(&second), config.endpoint.local.clone())
    });
    let agent = start(config);
    agent.serves_endpoints(2).await;
    let host = format!(
        "{}.localhost",
        tunnel_common::key::fingerprint(&second).label()
    );
    assert_eq!(get(relay.public, &host).await.expect("an answer"), "x");
}

#[tokio::test]
async fn what_comes_for_a_tenants_name_is_the_tenants_whatever_it_offers() {
    let relay = relay().await;
    let peer = connect(relay.api, &new_key(), 10).await;
    let (_control, _) = peer.register(agents(1, 0)).await;
    let bytes = hello_with(&peer.host(), tls_config(&[b"qtun-h2/1"]));
    let _visitor = e2e::arrival::knock(relay.public, &bytes)
        .await
        .expect("connects");
    let mut arrived = arrival(&peer.connection).await;
    assert_eq!(arrived.bytes(bytes.len()).await, bytes);
}

#[tokio::test]
async fn a_server_may_have_one_port_for_all() {
    let (udp, origin) = (ports::udp(), http("one number").await);
    // The number is free for UDP; for TCP it nearly always is.
    let taken = || std::net::TcpListener::bind(udp.address());
    drop(until_ok("the number is free", async || taken()).await);
    let data = folder();
    let server = pair::server_at(&pair::at(udp.port, udp.port, data.path())).await;
    assert_eq!(server.api, server.visitors());
    let (to, local) = (server.api.to_string(), origin.address.to_string());
    let client = process::client(&["--server", &to, "--local", &local], folder());
    let client = pair::serving(client).await;
    client.process.logs("QUIC").await;
    let body = get(server.visitors(), client.host()).await;
    assert_eq!(body.expect("an answer"), "one number");

    let endpoint = EndpointConfig::new(new_key(), local.parse().expect("a service"));
    let mut config = Config::new(to.parse().expect("a relay"), endpoint);
    let filtered = tcp_only(server.api).await;
    redirected(&mut config, &filtered.address.to_string());
    let agent = start(config);
    let body = get(server.visitors(), &agent.host().await).await;
    assert_eq!(body.expect("an answer"), "one number");
}
