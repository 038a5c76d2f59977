//! pebble as the ACME server: what Let's Encrypt gives to those who write clients.
//!
//! It validates TLS-ALPN-01 as a public authority would: it asks pebble-challtestsrv for the address
//! of a host, which is the same for every host, and dials it there, three times at once. Its roots
//! are new at every start. It has no renewal information (ARI), no profiles and no rate limits.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;

use crate::authority::authority;
use crate::poll::until_ok;
use crate::ports;
use crate::process::{self, Process, tool};
use crate::tools::run;

/// A query for the address of the root, which is answered as any other (RFC 1035, 4.1).
const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
/// What pebble says of a new account, of an order and of a certificate.
const ACCOUNT: &str = "There are now ";
const ACCOUNT_END: &str = " accounts in memory";
const ORDER: &str = "Added order \"";
const ISSUED: &str = "Issued certificate serial ";

/// How pebble behaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long certificates are valid: whole seconds.
    pub validity: Duration,
    /// Percent of good nonces that it refuses.
    pub nonce_reject: u8,
    /// Before each dial it waits a random number of whole seconds, less than this. `None`: it dials
    /// at once.
    pub va_sleep: Option<Duration>,
    /// The key id and, in base64url, the HMAC key without which nobody gets an account (RFC 8555,
    /// 7.3.4).
    pub eab: Option<(String, String)>,
    /// With what is to change in the protocol.
    pub strict: bool,
    /// The address of every host, where it validates.
    pub validates_at: Ipv4Addr,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            validity: Duration::from_secs(90 * 24 * 3600),
            nonce_reject: 0,
            va_sleep: None,
            eab: None,
            strict: true,
            validates_at: Ipv4Addr::LOCALHOST,
        }
    }
}

/// pebble and its DNS server, in the foreground. Dropping it kills both.
#[derive(Debug)]
pub struct Pebble {
    folder: Arc<TempDir>,
    ca_root: PathBuf,
    api: ports::Reserved<TcpListener>,
    management: ports::Reserved<TcpListener>,
    server: Process,
    _resolver: Resolver,
}

/// Starts pebble, which validates TLS-ALPN-01 at `tls_port`, and waits until it serves.
pub async fn pebble(tls_port: u16, rules: Rules) -> Pebble {
    run("pebble", &["-help"]).await;
    let folder = process::folder();
    let (api, management) = (ports::tcp(), ports::tcp());
    let names = ["localhost", "127.0.0.1", &ports::ADDRESS.to_string()];
    authority().certify(folder.path(), &names);
    let listeners = [api.address(), management.address()];
    let config = configuration(listeners, tls_port, &rules);
    fs::write(folder.path().join("pebble.json"), config.to_string()).expect("a configuration");
    let resolver = resolver(rules.validates_at, folder.clone()).await;
    let server = server(&rules, resolver.names.address(), folder.clone());
    for listener in listeners {
        until_ok("pebble listens", async || {
            let connected = TcpStream::connect(listener).await;
            connected.map_err(|error| format!("{error}: {}", server.log()))
        })
        .await;
    }
    Pebble {
        ca_root: folder.path().join("ca.pem"),
        folder,
        api,
        management,
        server,
        _resolver: resolver,
    }
}

fn configuration([api, management]: [SocketAddr; 2], tls_port: u16, rules: &Rules) -> Value {
    let mut settings = json!({
        "listenAddress": api,
        "managementListenAddress": management,
        "certificate": "cert.pem",
        "privateKey": "key.pem",
        "tlsPort": tls_port,
        "externalAccountBindingRequired": rules.eab.is_some(),
        "certificateValidityPeriod": rules.validity.as_secs(),
    });
    if let Some((id, key)) = &rules.eab {
        settings["externalAccountMACKeys"] = json!({ id: key });
    }
    json!({ "pebble": settings })
}

fn server(rules: &Rules, resolver: SocketAddr, folder: Arc<TempDir>) -> Process {
    let (strict, resolver) = (format!("-strict={}", rules.strict), resolver.to_string());
    let flags = [&strict, "-config", "pebble.json", "-dnsserver", &resolver];
    let mut command = command("pebble", &flags);
    command.env("PEBBLE_WFE_NONCEREJECT", rules.nonce_reject.to_string());
    // Or half of the orders would need no validation.
    command.env("PEBBLE_AUTHZREUSE", "0");
    match rules.va_sleep {
        Some(time) => command.env("PEBBLE_VA_SLEEPTIME", time.as_secs().to_string()),
        None => command.env("PEBBLE_VA_NOSLEEP", "1"),
    };
    process::spawn(command, folder)
}

/// The DNS server.
#[derive(Debug)]
struct Resolver {
    names: ports::Reserved<std::net::UdpSocket>,
    _management: ports::Reserved<TcpListener>,
    _process: Process,
}

/// Starts the DNS server, for which every host is at `address`, and waits until it answers.
async fn resolver(address: Ipv4Addr, folder: Arc<TempDir>) -> Resolver {
    // It listens on TCP too. Should another have that port, nobody misses it: pebble asks over UDP.
    let (names, management) = (ports::udp(), ports::tcp());
    let flags = [
        ["-dns01", &names.address().to_string()],
        ["-management", &management.address().to_string()],
        ["-defaultIPv4", &address.to_string()],
        ["-defaultIPv6", ""],
        ["-http01", ""],
        ["-https01", ""],
        ["-tlsalpn01", ""],
    ];
    let process = process::spawn(command("pebble-challtestsrv", flags.as_flattened()), folder);
    until_ok("pebble-challtestsrv answers", async || {
        let answered = ask(names.address()).await;
        answered.map_err(|error| format!("{error}: {}", process.log()))
    })
    .await;
    Resolver {
        names,
        _management: management,
        _process: process,
    }
}

/// Fails at once where nobody listens: loopback says so.
async fn ask(resolver: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(QUERY).await?;
    socket.recv(&mut [0; 512]).await.map(drop)
}

/// Both speak on standard output; here that is the log.
fn command(program: &str, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >&2", program]);
    command.args(flags);
    command
}

impl Pebble {
    /// Where clients begin.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.api.address())
    }

    /// The root of its API's certificate, in PEM. It has nothing to do with what pebble issues.
    pub fn ca_root(&self) -> &Path {
        &self.ca_root
    }

    /// The root of all certificates that it issues, in PEM.
    pub async fn issuer_root(&self) -> String {
        let url = format!("https://{}/roots/0", self.management.address());
        let trusted = self.ca_root.to_str().expect("UTF-8");
        let flags = ["--silent", "--show-error", "--fail", "--cacert", trusted];
        tool("curl", &[&flags[..], &[&url]].concat()).await
    }

    /// The same as a file.
    pub async fn issuer_root_file(&self) -> PathBuf {
        let path = self.folder.path().join("issuer.pem");
        fs::write(&path, self.issuer_root().await).expect("writes");
        path
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Waits until it has said `text`.
    pub async fn logs(&self, text: &str) {
        self.server.logs(text).await;
    }

    /// How many accounts it made. As with the other counts, the client's answer may be earlier: wait.
    pub fn accounts(&self) -> usize {
        let made = |line: &str| line.contains(ACCOUNT) && line.ends_with(ACCOUNT_END);
        self.log().lines().filter(|line| made(line)).count()
    }

    /// How many orders it took.
    pub fn orders(&self) -> usize {
        self.log().matches(ORDER).count()
    }

    /// How many certificates it issued.
    pub fn issued(&self) -> usize {
        self.log().matches(ISSUED).count()
    }
}
