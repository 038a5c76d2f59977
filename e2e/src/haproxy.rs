//! HAProxy in front of the public port, as an operator would put it there.

use std::fs;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::poll::until_ok;
use crate::ports;
use crate::process::{self, Process};
use crate::tools::run;

/// HAProxy in TCP mode, in the foreground. Dropping it kills it.
#[derive(Debug)]
pub struct Haproxy {
    /// Where visitors come.
    pub address: SocketAddr,
    process: Process,
    _port: ports::Reserved<std::net::TcpListener>,
}

/// Starts HAProxy in front of `relay`, which it sends a header as `option` says (`send-proxy` or
/// `send-proxy-v2`), and whose health it checks all the time. Waits until it listens.
pub async fn haproxy(relay: SocketAddr, option: &str) -> Haproxy {
    run("haproxy", &["-v"]).await;
    let (folder, port) = (process::folder(), ports::tcp());
    let path = folder.path().join("haproxy.cfg");
    let config = configuration(port.address(), relay, option);
    fs::write(&path, config).expect("a configuration");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let process = process::spawn(command, folder);
    let address = port.address();
    until_ok("HAProxy listens", async || {
        TcpStream::connect(address)
            .await
            .map_err(|error| format!("{error}: {}", process.log()))
    })
    .await;
    Haproxy {
        address,
        process,
        _port: port,
    }
}

/// Checks come every few milliseconds, so that a short story has many of them; one that fails takes
/// the relay out at once.
fn configuration(address: SocketAddr, relay: SocketAddr, option: &str) -> String {
    format!(
        "global\n  maxconn 1000\n  log stdout format raw daemon\n\
         defaults\n  mode tcp\n  log global\n  option log-health-checks\n  \
         timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen public\n  bind {address}\n  \
         server relay {relay} {option} check inter 5ms fall 1 rise 20\n"
    )
}

impl Haproxy {
    /// Waits until it has found the relay in good health.
    pub async fn is_content(&mut self) {
        loop {
            let line = self.process.line().await.expect("HAProxy runs");
            assert!(!line.contains("failed"), "{line}");
            if line.contains("Health check for server public/relay succeeded") {
                return;
            }
        }
    }
}
