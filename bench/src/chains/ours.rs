//! Ours: the release binaries, as a user would start them.

use std::net::SocketAddr;

use e2e::pair::{self, introduce};
use e2e::process::{self, Process, folder};
use e2e::transport::Over;

use super::chain::Chain;
use crate::origin::Origin;
use crate::place::Place;
use crate::row::Row;

/// How many connections serve together over HTTP/2.
const POOL: usize = 4;

pub(super) async fn start(row: Row, place: &Place, origin: &Origin) -> Chain {
    let congestion: &[&str] = match row {
        Row::QuicCubic => &["--congestion", "cubic"],
        _ => &[],
    };
    let over = match row {
        Row::H2 => Over::H2,
        _ => Over::Quic,
    };
    let server = relay(place, congestion).await;
    let (api, local, pool) = (
        server.api.to_string(),
        origin.plain.to_string(),
        POOL.to_string(),
    );
    let mut flags = vec!["--server", &api, "--server-fingerprint", &server.key];
    flags.extend(["--local", &local, "--pool-size", &pool]);
    let flags = [&flags, congestion, over.flags()].concat();
    let folder = folder();
    let mut command = process::command("client", &flags, &folder);
    // It tells of every tunnel of a pool.
    command.env("RUST_LOG", "info,tunnel_client::link::tunnel=debug");
    let client = pair::serving(process::spawn(place.agent_side(command), folder)).await;
    has_tunnels(&client.process, over).await;
    let host = client.host().to_owned();
    Chain {
        row,
        entrance: SocketAddr::new(place.relay_ip(), server.visitors().port()),
        host,
        relay: Some(server.process),
        agent: Some(client.process),
        _ports: vec![],
    }
}

/// Starts a relay alone.
pub(crate) async fn relay(place: &Place, more: &[&str]) -> pair::Server {
    let (ip, folder) = (place.relay_ip().to_string(), folder());
    let mut flags = vec!["--bind-addr", &ip, "--api-port", "0"];
    flags.extend(["--pub-port", "0", "--alpn-port", "0"]);
    flags.extend(more);
    let command = process::command("server", &flags, &folder);
    introduce(process::spawn(place.relay_side(command), folder)).await
}

/// Waits until all connections of the tunnel are there.
async fn has_tunnels(client: &Process, over: Over) {
    let wanted = match over {
        Over::Quic => 1,
        Over::H2 => POOL,
    };
    e2e::poll::eventually("all tunnels serve", || {
        let log = client.log();
        log.matches(over.logged()).count() >= wanted
    })
    .await;
}
