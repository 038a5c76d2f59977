//! nginx as a local service.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::authority::authority;
use crate::poll::until_ok;
use crate::ports;
use crate::process::{self, Process};
use crate::tools::run;

/// A name that its certificate is for, beside its address.
pub const NAME: &str = "web.test";

/// How nginx listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listening {
    /// At a Unix socket instead of a TCP port.
    pub unix: bool,
    /// With TLS.
    pub tls: bool,
    /// Behind a PROXY protocol header, without which it serves nobody.
    pub proxy_protocol: bool,
}

/// nginx with a document root of its own, in the foreground. Dropping it kills it.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens, unless at a Unix socket.
    pub address: SocketAddr,
    /// What `--local` takes for it.
    pub local: String,
    folder: Arc<TempDir>,
    process: Process,
    _port: ports::Reserved<std::net::TcpListener>,
}

/// Starts nginx at a TCP port, and waits until it listens. It takes uploads by PUT.
pub async fn nginx() -> Nginx {
    nginx_with(Listening::default()).await
}

/// The same, listening in another way. `/visitor` answers with the address in the PROXY header
/// and the server name of the TLS.
pub async fn nginx_with(how: Listening) -> Nginx {
    run("nginx", &["-v"]).await;
    let (folder, port) = (process::folder(), ports::tcp());
    let address = port.address();
    fs::create_dir(folder.path().join("root")).expect("a document root");
    let ip = address.ip().to_string();
    authority().certify(folder.path(), &[NAME, &ip]);
    let config = configuration(folder.path(), address, how);
    fs::write(folder.path().join("nginx.conf"), config).expect("a configuration");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path());
    command.args(["-e", "error.log", "-c", "nginx.conf", "-g", "daemon off;"]);
    let process = process::spawn(command, folder.clone());
    let socket = folder.path().join("web.sock");
    until_ok("nginx listens", async || {
        let connected = if how.unix {
            UnixStream::connect(&socket).await.map(drop)
        } else {
            TcpStream::connect(address).await.map(drop)
        };
        connected.map_err(|error| format!("{error}: {}", process.log()))
    })
    .await;
    let local = match how {
        Listening { unix: true, .. } => format!("unix:{}", socket.display()),
        Listening { tls: true, .. } => format!("https://{address}"),
        _ => address.to_string(),
    };
    Nginx {
        address,
        local,
        folder,
        process,
        _port: port,
    }
}

/// One process, so that killing it leaves nothing behind, and no file outside of `folder`.
fn configuration(folder: &Path, address: SocketAddr, how: Listening) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .concat();
    let place = if how.unix {
        format!("unix:{folder}/web.sock")
    } else {
        address.to_string()
    };
    let tls = if how.tls { " ssl" } else { "" };
    let proxy_protocol = if how.proxy_protocol {
        " proxy_protocol"
    } else {
        ""
    };
    format!(
        "master_process off;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{\naccess_log off;\n{temporary}\
         server {{\nlisten {place}{tls}{proxy_protocol};\nroot {folder}/root;\n\
         ssl_certificate {folder}/cert.pem;\nssl_certificate_key {folder}/key.pem;\n\
         client_max_body_size 0;\ndav_methods PUT;\n\
         location = /visitor {{ return 200 \"$proxy_protocol_addr $ssl_server_name\"; }}\n}}\n}}\n"
    )
}

impl Nginx {
    /// The file that it serves as `/<name>`, or that was uploaded there.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    /// The authority that signed its certificate, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its certificate alone, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The key of its certificate, in PEM.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Its error log, and what it said on standard error.
    pub fn log(&self) -> String {
        let path = self.folder.path().join("error.log");
        fs::read_to_string(path).unwrap_or_default() + &self.process.log()
    }
}
