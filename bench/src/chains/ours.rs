//! Ours: the release binaries, as a user would start them.

use e2e::netsim::programs;
use e2e::pair::{self, Client, Server};
use e2e::poll::eventually;
use e2e::process::{self, folder};
use e2e::transport::Over;

use super::chain::{Api, Chain};
use crate::origin::Origin;
use crate::place::Place;
use crate::row::Row;

/// How many connections serve together over HTTP/2.
pub(crate) const POOL: usize = 4;

pub(super) async fn start(row: Row, place: &Place, origin: &Origin) -> Chain {
    let congestion: &[&str] = match row {
        Row::QuicCubic => &["--congestion", "cubic"],
        _ => &[],
    };
    let over = row.over();
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
    has_tunnels(&client, over).await;
    let host = client.host().to_owned();
    Chain {
        row,
        entrance: server.visitors(),
        host,
        api: Some(Api {
            address: server.api,
            key: server.key,
        }),
        relay: Some(server.process),
        agent: Some(client.process),
        _ports: vec![],
    }
}

async fn relay(place: &Place, flags: &[&str]) -> Server {
    match place {
        Place::Loopback(_) => pair::server(flags).await,
        Place::Line(line) => programs::server(line, flags).await,
    }
}

/// Waits until all connections of the tunnel are there.
async fn has_tunnels(client: &Client, over: Over) {
    let (transport, wanted) = match over {
        Over::Quic => ("QUIC", 1),
        Over::H2 => ("HTTP/2", POOL),
    };
    let are_there = || client.tunnels_over(transport) >= wanted;
    eventually("all tunnels serve", are_there).await;
}
