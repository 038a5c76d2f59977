//! What `server` and `client` say on standard output, read as a user would.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::process::Command;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key;

use crate::ports;
use crate::process::{self, Process};
use crate::transport::Over;

/// A `server` that has said where it listens.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where agents dial.
    pub api: SocketAddr,
    /// Where visitors come: the public port, and the second one if there is one.
    pub public: Vec<SocketAddr>,
    /// The fingerprint of its key.
    pub key: String,
    /// The client command that it printed.
    pub command: String,
}

/// A `client` that serves.
#[derive(Debug)]
pub struct Client {
    /// The process.
    pub process: Process,
    /// Its id.
    pub id: String,
    /// The URL that it printed.
    pub url: String,
}

/// Starts `server` on free ports of loopback, and reads what it says.
pub async fn server(flags: &[&str]) -> Server {
    introduce(process::server(flags)).await
}

/// Flags that put a server at [`ports::ADDRESS`], at ports that are known, its key in `folder`.
pub fn at(api: u16, public: u16, folder: &Path) -> Vec<String> {
    let flags = format!(
        "--bind-addr {} --api-port {api} --pub-port {public} --alpn-port {public} --data-dir",
        ports::ADDRESS
    );
    let folder = folder.to_str().expect("UTF-8").to_owned();
    let flags = flags.split(' ').map(str::to_owned);
    flags.chain([folder]).collect()
}

/// Starts `server` with exactly these flags, and reads what it says.
pub async fn server_at(flags: &[String]) -> Server {
    let mut command = Command::new(process::binary("server"));
    command.args(flags);
    introduce(process::spawn(command, process::folder())).await
}

/// Reads what a `server` says first; panics unless it is that and in that order.
pub async fn introduce(mut process: Process) -> Server {
    let api = process.address("API: udp ").await;
    assert_eq!(process.address("API: tcp ").await, api);
    let mut public = vec![];
    let key = loop {
        let Some(line) = process.line().await else {
            panic!("no key; it said: {}", process.log());
        };
        match line.strip_prefix("PUBLIC: tcp ") {
            Some(address) => public.push(address.parse().expect("an address")),
            None => break line.strip_prefix("KEY: ").expect("a key").to_owned(),
        }
    };
    let command = process.line_after("CLIENT: ").await;
    Server {
        process,
        api,
        public,
        key,
        command,
    }
}

/// Starts `client` for `server`, its keys in `folder`, and waits until it serves.
pub async fn publish(
    over: Over,
    server: &Server,
    local: impl Display,
    flags: &[&str],
    folder: Arc<TempDir>,
) -> Client {
    let (api, local) = (server.api.to_string(), local.to_string());
    let mut all = vec!["--server", &api, "--server-fingerprint", &server.key];
    all.extend(["--local", &local]);
    all.extend(over.with(flags));
    let client = serving(process::client(&all, folder)).await;
    client.process.logs(over.logged()).await;
    client
}

/// Reads what a `client` says when it serves: exactly an id and a URL.
pub async fn serving(mut process: Process) -> Client {
    let mut line = async |prefix: &str| match process.line().await {
        Some(line) => line.strip_prefix(prefix).expect(&line).to_owned(),
        None => panic!("no line {prefix:?}; it said: {}", process.log()),
    };
    let (id, url) = (line("ID: ").await, line("URL: ").await);
    Client { process, id, url }
}

impl Server {
    /// Where visitors come.
    pub fn visitors(&self) -> SocketAddr {
        self.public[0]
    }
}

impl Client {
    /// The host in its URL.
    pub fn host(&self) -> &str {
        let rest = self.url.strip_prefix("https://").expect("https");
        rest.split(':').next().expect("a host")
    }

    /// How many tunnels over `transport`, "QUIC" or "HTTP/2", its log has told of so far: the newest takes
    /// the new visits.
    pub fn tunnels_over(&self, transport: &str) -> usize {
        let (serves, transport) = ("tunnel serves", format!("transport={transport:?}"));
        let log = self.process.log();
        let tells = |line: &&str| line.contains(serves) && line.contains(&transport);
        log.lines().filter(tells).count()
    }

    /// The fingerprint of the key that visitors see, as `curl --pinnedpubkey` wants it.
    pub fn visitor_key(&self) -> KeyFingerprint {
        fingerprint(&self.process.folder().path().join("client.key"))
    }
}

/// The fingerprint of the key in a PEM file.
pub fn fingerprint(pem: &Path) -> KeyFingerprint {
    let pem = std::fs::read_to_string(pem).expect("a key file");
    key::fingerprint(&KeyPair::from_pem(&pem).expect("a key"))
}
