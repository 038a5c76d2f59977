//! The binaries at the two ends of a line: `server` far, `client` near.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::process::Command;

use super::line::{FAR, Line};
use super::namespace::Namespace;
use crate::pair::{self, Client, Server};
use crate::process::{self, Process, folder};
use crate::transport::Over;

/// Starts `server` at [`FAR`], on free ports, and reads what it says.
pub async fn server(line: &Line, flags: &[&str]) -> Server {
    server_at(line, (FAR, 0).into(), 0, flags, folder()).await
}

/// The same at this address for agents, and this public port; its key in `folder`. Port 0 is a free one.
pub async fn server_at(
    line: &Line,
    api: SocketAddr,
    public: u16,
    flags: &[&str],
    folder: Arc<TempDir>,
) -> Server {
    let (ip, api, public) = (
        api.ip().to_string(),
        api.port().to_string(),
        public.to_string(),
    );
    let mut all = vec!["--bind-addr", &ip, "--api-port", &api];
    all.extend(["--pub-port", &public, "--alpn-port", "0"]);
    all.extend(flags);
    pair::introduce(start(line.far(), "server", &all, folder)).await
}

/// Starts `client` near, for a local service there, and waits until it serves, whatever carries the
/// tunnel.
pub async fn publish(
    line: &Line,
    server: &Server,
    origin: SocketAddr,
    flags: &[&str],
    folder: Arc<TempDir>,
) -> Client {
    let api = server.api.to_string();
    publish_at(line, &[(&api, &server.key)], origin, flags, folder).await
}

/// The same through several relays: their addresses or names, and the fingerprints of their keys.
pub async fn publish_at(
    line: &Line,
    relays: &[(&str, &str)],
    origin: SocketAddr,
    flags: &[&str],
    folder: Arc<TempDir>,
) -> Client {
    let local = origin.to_string();
    let relay = |(api, key)| ["--server", api, "--server-fingerprint", key];
    let mut all: Vec<&str> = relays.iter().copied().flat_map(relay).collect();
    all.extend(["--local", &local]);
    all.extend(flags);
    pair::serving(start(line.near(), "client", &all, folder)).await
}

/// The same, which must serve over this transport.
pub async fn publish_over(
    over: Over,
    line: &Line,
    server: &Server,
    origin: SocketAddr,
    flags: &[&str],
    folder: Arc<TempDir>,
) -> Client {
    let client = publish(line, server, origin, &over.with(flags), folder).await;
    client.process.logs(over.logged()).await;
    client
}

/// Starts the binary `name` in a namespace, its keys in `folder`.
pub fn start(namespace: &Namespace, name: &str, flags: &[&str], folder: Arc<TempDir>) -> Process {
    let mut command: Command = process::command(name, flags, &folder);
    // It tells of every tunnel of a pool.
    command.env("RUST_LOG", "info,tunnel_client::link::tunnel=debug");
    process::spawn(namespace.command(&command), folder)
}
