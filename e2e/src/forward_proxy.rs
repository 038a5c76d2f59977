//! Proxies before an agent, as a company puts them there: tinyproxy (CONNECT) and microsocks (SOCKS5).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::poll::until_ok;
use crate::ports;
use crate::process::{self, Process};

/// Where the connections of all these proxies come from.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Whom a proxy lets in.
pub type Login<'a> = Option<(&'a str, &'a str)>;

/// A proxy in the foreground. Dropping it kills it.
#[derive(Debug)]
pub struct ForwardProxy {
    /// Where agents come.
    pub address: SocketAddr,
    program: &'static str,
    arguments: Vec<String>,
    folder: Arc<TempDir>,
    process: Process,
    _port: ports::Reserved<std::net::TcpListener>,
}

/// Starts tinyproxy for everybody on loopback or for `login` alone, and waits until it listens. It
/// connects to any port.
pub async fn tinyproxy(login: Login<'_>) -> ForwardProxy {
    let (folder, port) = (process::folder(), ports::tcp());
    let path = folder.path().join("tinyproxy.conf");
    let (ip, number) = (port.address().ip(), port.port);
    let login = login.map(|(user, password)| format!("BasicAuth {user} {password}\n"));
    let configuration = format!(
        "Listen {ip}\nPort {number}\nBind {SOURCE}\nAllow 127.0.0.0/8\nTimeout 600\n\
         MaxClients 100\nLogLevel Info\n{}",
        login.unwrap_or_default()
    );
    fs::write(&path, configuration).expect("a configuration");
    let path = path.to_str().expect("UTF-8").to_owned();
    start(
        "tinyproxy",
        vec!["-d".to_owned(), "-c".to_owned(), path],
        folder,
        port,
    )
    .await
}

/// Starts microsocks for everybody or for `login` alone, and waits until it listens.
pub async fn microsocks(login: Login<'_>) -> ForwardProxy {
    let (folder, port) = (process::folder(), ports::tcp());
    let (ip, number) = (port.address().ip(), port.port);
    let mut arguments = format!("-i {ip} -p {number} -b {SOURCE}");
    if let Some((user, password)) = login {
        arguments += &format!(" -u {user} -P {password}");
    }
    let arguments = arguments.split(' ').map(str::to_owned).collect();
    start("microsocks", arguments, folder, port).await
}

async fn start(
    program: &'static str,
    arguments: Vec<String>,
    folder: Arc<TempDir>,
    port: ports::Reserved<std::net::TcpListener>,
) -> ForwardProxy {
    let process = run(program, &arguments, folder.clone(), port.address()).await;
    ForwardProxy {
        address: port.address(),
        program,
        arguments,
        folder,
        process,
        _port: port,
    }
}

async fn run(
    program: &str,
    arguments: &[String],
    folder: Arc<TempDir>,
    address: SocketAddr,
) -> Process {
    let mut command = Command::new(program);
    command.args(arguments);
    let process = process::spawn(command, folder);
    until_ok(&format!("{program} listens"), async || {
        let connected = TcpStream::connect(address).await;
        connected.map_err(|error| format!("{error}: {}", process.log()))
    })
    .await;
    process
}

impl ForwardProxy {
    /// Its URL without a login.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }

    /// Kills it, with all connections through it.
    pub async fn is_killed(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.ends().await;
    }

    /// Starts it again where it was, and waits until it listens.
    pub async fn is_started_again(&mut self) {
        let folder = self.folder.clone();
        self.process = run(self.program, &self.arguments, folder, self.address).await;
    }
}
