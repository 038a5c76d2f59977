//! The local service of all chains: one nginx, in the clear for those whose TLS ends before it, and with TLS.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use e2e::authority::authority;
use e2e::ports;
use e2e::process::{self, Process};
use tempfile::TempDir;
use tokio::process::Command;

use crate::place::Place;

/// The name that its certificate is for.
pub(crate) const NAME: &str = "bench.localhost";
/// What a keep-alive visitor asks for on loopback.
pub(crate) const SMALL: &str = "small";
const SMALL_BYTES: u64 = 100;
/// What one asks for over a line.
pub(crate) const PAGE: &str = "page";
const PAGE_BYTES: u64 = 4096;
/// What is downloaded, and uploaded.
pub(crate) const BIG: &str = "big";
/// The length of that.
const BIG_BYTES: u64 = 1 << 30;
/// What each of eight downloads.
pub(crate) const EIGHTH: &str = "eighth";

/// nginx, where the agents are. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Where it speaks HTTP.
    pub(crate) plain: SocketAddr,
    /// Where it speaks HTTPS, with a P-256 certificate as the agents have one.
    pub(crate) tls: SocketAddr,
    /// What is uploaded.
    pub(crate) big: PathBuf,
    process: Process,
    _ports: [ports::Reserved<std::net::TcpListener>; 2],
}

/// Starts nginx.
pub(crate) fn start(place: &Place) -> Origin {
    let (folder, ports) = (in_memory(), [ports::tcp(), ports::tcp()]);
    let [plain, tls] = [ports[0].address(), ports[1].address()];
    let path = folder.path();
    authority().certify(path, &[NAME]);
    write_files(path).expect("a document root");
    fs::write(path.join("nginx.conf"), configuration(path, plain, tls)).expect("writes");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(path);
    command.arg("-c").arg(path.join("nginx.conf"));
    command.arg("-e").arg(path.join("error.log"));
    command.args(["-g", "daemon off; user root;"]);
    Origin {
        plain,
        tls,
        big: path.join("root").join(BIG),
        process: process::spawn(place.agent_side(command), folder.clone()),
        _ports: ports,
    }
}

impl Origin {
    /// Processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        self.process.processor_time()
    }
}

/// A folder that no disk makes slow, where there is such a thing.
fn in_memory() -> Arc<TempDir> {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    Arc::new(folder.expect("a folder"))
}

fn write_files(folder: &Path) -> io::Result<()> {
    let root = folder.join("root");
    fs::create_dir(&root)?;
    let sizes = [
        (SMALL, SMALL_BYTES),
        (PAGE, PAGE_BYTES),
        (EIGHTH, BIG_BYTES / 8),
        (BIG, BIG_BYTES),
    ];
    for (name, bytes) in sizes {
        // Holes read as zeroes: nobody compresses anything here.
        File::create(root.join(name))?.set_len(bytes)?;
    }
    Ok(())
}

/// One process, so that its processor time is all in one place. Uploads are thrown away as they arrive.
fn configuration(folder: &Path, plain: SocketAddr, tls: SocketAddr) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "master_process off;\nworker_rlimit_nofile 20000;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 19000; }}\n\
         http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\ntcp_nodelay on;\nkeepalive_requests 1000000000;\n\
         keepalive_timeout 600s;\nclient_max_body_size 0;\nssl_protocols TLSv1.2 TLSv1.3;\n{temporary}\
         server {{\nlisten {plain} backlog=4096;\nlisten {tls} ssl backlog=4096;\nroot {folder}/root;\n\
         ssl_certificate {folder}/cert.pem;\nssl_certificate_key {folder}/key.pem;\n\
         location /up/ {{ return 204; }}\n}}\n}}\n"
    )
}
