//! nginx as a local service.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::poll::until_ok;
use crate::ports;
use crate::process::{self, Process};
use crate::tools::run;

/// nginx with a document root of its own, in the foreground. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    folder: Arc<TempDir>,
    process: Process,
    _port: ports::Reserved<std::net::TcpListener>,
}

/// Starts nginx, and waits until it listens. It takes uploads by PUT.
pub async fn nginx() -> Nginx {
    run("nginx", &["-v"]).await;
    let (folder, port) = (process::folder(), ports::tcp());
    fs::create_dir(folder.path().join("root")).expect("a document root");
    let config = configuration(folder.path(), port.address());
    fs::write(folder.path().join("nginx.conf"), config).expect("a configuration");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path());
    command.args(["-e", "error.log", "-c", "nginx.conf", "-g", "daemon off;"]);
    let process = process::spawn(command, folder.clone());
    let address = port.address();
    until_ok("nginx listens", async || {
        TcpStream::connect(address)
            .await
            .map_err(|error| format!("{error}: {}", process.log()))
    })
    .await;
    Nginx {
        address,
        folder,
        process,
        _port: port,
    }
}

/// One process, so that killing it leaves nothing behind, and no file outside of `folder`.
fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "master_process off;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\naccess_log off;\n{temporary}\
         server {{\nlisten {address};\nroot {folder}/root;\n\
         client_max_body_size 0;\ndav_methods PUT;\n}}\n}}\n"
    )
}

impl Nginx {
    /// The file that it serves as `/<name>`, or that was uploaded there.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    /// Its error log, and what it said on standard error.
    pub fn log(&self) -> String {
        let path = self.folder.path().join("error.log");
        fs::read_to_string(path).unwrap_or_default() + &self.process.log()
    }
}
