//! Agents that come over TCP: at the API port, or where nothing but the public port is reached.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::agent::{Agent, config, new_key, start};
use e2e::arrival::arrival;
use e2e::hello::hello_with;
use e2e::origin::{Origin, http, origin};
use e2e::pair;
use e2e::peer::{connect, hello as agents};
use e2e::poll::until_ok;
use e2e::ports;
use e2e::process::{self, folder};
use e2e::relay::{Relay, relay, relay_with};
use e2e::transport::Over;
use e2e::visitor::{get, tls_config};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tunnel_client::config::{Config, EndpointConfig, Transport};
use tunnel_client::link::relay_trust::RelayTrust;

/// UDP that is not answered is given up so soon.
const IMPATIENT: Duration = Duration::from_millis(100);

/// Makes the agent dial `address` instead, where no UDP is answered.
fn redirected(config: &mut Config, address: &str) {
    config.relays[0].address = address.parse().expect("an address");
    config.transport = Transport::Any;
    config.timeouts.quic.handshake = IMPATIENT;
    config.last_port = None;
}

/// An agent that finds nothing but the public port of `relay`.
async fn publish(relay: &Relay, origin: SocketAddr) -> Agent {
    let mut config = config(Over::Quic, relay, new_key(), origin);
    redirected(&mut config, &relay.public.to_string());
    let agent = start(config);
    agent.serves().await;
    agent
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
    let mut config = config(Over::Quic, &relay, new_key(), origin.address);
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
    let mut config = config(Over::Quic, &relay, new_key(), origin.address);
    redirected(&mut config, &filtered.address.to_string());
    let agent = start(config);
    let body = get(relay.public, &agent.host().await).await;
    assert_eq!(body.expect("an answer"), "no UDP");
}

#[tokio::test]
async fn where_the_relays_port_is_closed_the_last_one_is_tried() {
    let (relay, origin) = (relay().await, http("last").await);
    let closed = ports::tcp();
    let mut config = config(Over::Quic, &relay, new_key(), origin.address);
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
    let mut config = config(Over::Quic, &relay, new_key(), origin.address);
    redirected(&mut config, &filtered.address.to_string());
    config.relays[0].trust = RelayTrust::Pinned(honest.fingerprint);
    config.last_port = Some(honest.public.port());
    let agent = start(config);
    // The wrong one was asked first and refused: the agent went on to the right one.
    let host = agent.host().await;
    assert!(get(other.public, &host).await.is_err());
    assert_eq!(get(honest.public, &host).await.expect("an answer"), "x");
}

#[tokio::test]
async fn what_comes_for_a_tenants_name_is_the_tenants_whatever_it_offers() {
    let relay = relay().await;
    let peer = connect(Over::Quic, relay.api, &new_key(), 10).await;
    let (_control, _) = peer.register(agents(1, 0)).await;
    let bytes = hello_with(&peer.host(), tls_config(&[b"qtun-h2/1"]));
    let _visitor = e2e::arrival::knock(relay.public, &bytes)
        .await
        .expect("connects");
    let mut arrived = arrival(&peer).await;
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
