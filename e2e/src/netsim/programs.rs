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
    let far = FAR.to_string();
    let mut all = vec!["--bind-addr", &far];
    all.extend(["--api-port", "0", "--pub-port", "0", "--alpn-port", "0"]);
    all.extend(flags);
    pair::introduce(start(line.far(), "server", &all, folder())).await
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
    let (api, local) = (server.api.to_string(), origin.to_string());
    let mut all = vec!["--server", &api, "--server-fingerprint", &server.key];
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
