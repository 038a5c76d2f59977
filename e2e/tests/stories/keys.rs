//! Key files: what is refused, what survives, and what a failure leaves behind.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use e2e::origin::{Origin, http};
use e2e::pair::{self, Server, server};
use e2e::process::{self, Process, folder, spawn};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tunnel_common::{private_file, tls};

const USAGE: i32 = 2;

/// A server to be attached to, and something to publish.
struct Elsewhere {
    server: Server,
    origin: Origin,
}

async fn elsewhere() -> Elsewhere {
    Elsewhere {
        server: server(&[]).await,
        origin: http("x").await,
    }
}

impl Elsewhere {
    /// A client's command, its files in `files`.
    fn client(&self, files: &TempDir, flags: &[&str]) -> Command {
        let (api, local) = (self.server.api.to_string(), self.origin.address.to_string());
        let all = [&["--server", &api, "--local", &local], flags].concat();
        process::command("client", &all, files)
    }
}

/// The same command, run by another one.
fn run_by(runner: &[&str], command: &Command) -> Command {
    let mut by = Command::new(runner[0]);
    by.args(&runner[1..]);
    by.arg(command.as_std().get_program());
    by.args(command.as_std().get_args());
    by
}

async fn fails(mut process: Process, complaints: &[&str]) {
    assert_eq!(process.exit_code().await, USAGE, "{}", process.log());
    for complaint in complaints {
        process.logs(complaint).await;
    }
}

fn names(files: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(files.path()).expect("lists");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("lists").file_name();
        name.into_string().expect("UTF-8")
    };
    entries.map(name).collect()
}

fn mode(path: &Path) -> u32 {
    let found = path.metadata().expect("is there");
    found.permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("is ours");
}

/// A key file as the binaries make it.
fn make_key(path: &Path) {
    let key = tls::generate_key().expect("a key");
    private_file::create(path, key.serialize_pem().as_bytes()).expect("writes");
}

#[tokio::test]
async fn a_required_key_is_not_made() {
    let (elsewhere, files) = (elsewhere().await, folder());
    let client = |flags: &[&str]| spawn(elsewhere.client(&files, flags), files.clone());
    let required = ["--require-key"];
    fails(client(&required), &["client.key", "is required"]).await;
    let second = [
        "--require-key",
        "--allow-client",
        "aaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    fails(process::server(&second), &["relay.key", "is required"]).await;
    assert_eq!(names(&files), Vec::<String>::new());

    let made = pair::serving(client(&[])).await;
    made.process.logs(&made.id).await;
    assert_eq!(pair::serving(client(&required)).await.id, made.id);
}

#[tokio::test]
async fn a_key_that_others_may_read_or_write_is_refused_and_how_to_mend_it_is_said() {
    let (elsewhere, files) = (elsewhere().await, folder());
    let (clients, relays) = (
        files.path().join("client.key"),
        files.path().join("relay.key"),
    );
    make_key(&clients);
    make_key(&relays);
    let data = files.path().to_str().expect("UTF-8");
    for bits in [0o644, 0o640, 0o620, 0o606] {
        set_mode(&clients, bits);
        set_mode(&relays, bits);
        let client = spawn(elsewhere.client(&files, &[]), files.clone());
        fails(client, &["client.key", "chmod"]).await;
        let server = process::server(&["--data-dir", data]);
        fails(server, &["relay.key", "chmod"]).await;
    }
    set_mode(&clients, 0o400);
    let client = elsewhere.client(&files, &["--require-key"]);
    pair::serving(spawn(client, files.clone())).await;
}

#[tokio::test]
async fn a_secret_that_root_has_mounted_behind_links_is_read() {
    let (elsewhere, files) = (elsewhere().await, folder());
    // As a container platform lays secrets out: a link to a file behind a link to a folder.
    let mounted = files.path().join("..2026");
    std::fs::create_dir(&mounted).expect("makes");
    make_key(&mounted.join("client.key"));
    set_mode(&mounted.join("client.key"), 0o644);
    if chown(mounted.join("client.key"), Some(65534), Some(65534)).is_err() {
        eprintln!("SKIPPED: only root can give a file away");
        return;
    }
    symlink("..2026", files.path().join("..data")).expect("links");
    symlink("..data/client.key", files.path().join("client.key")).expect("links");
    let client = elsewhere.client(&files, &["--require-key"]);
    pair::serving(spawn(client, files.clone())).await;
}

#[tokio::test]
async fn no_umask_makes_a_key_that_others_may_read_or_that_we_may_not() {
    let elsewhere = elsewhere().await;
    for umask in ["000", "777"] {
        let files = folder();
        let data = files.path().join("data");
        let data = data.to_str().expect("UTF-8");
        let flags = ["--primary-key", "sub/client.key", "--data-dir", data];
        let set = format!("umask {umask} && exec \"$@\"");
        // Folders that nobody may enter would be the operator's wish.
        std::fs::create_dir_all(format!("{data}/sub")).expect("makes");
        let command = run_by(&["sh", "-c", &set, "-"], &elsewhere.client(&files, &flags));
        pair::serving(spawn(command, files.clone())).await;
        let key = files.path().join("data/sub/client.key");
        assert_eq!(mode(&key), 0o600, "umask {umask}");
    }
}

#[tokio::test]
async fn a_folder_that_had_to_be_made_is_its_owners_alone() {
    let (elsewhere, files) = (elsewhere().await, folder());
    let data = files.path().join("deep/data");
    let flags = ["--data-dir", data.to_str().expect("UTF-8")];
    let command = run_by(
        &["sh", "-c", "umask 000 && exec \"$@\"", "-"],
        &elsewhere.client(&files, &flags),
    );
    pair::serving(spawn(command, files.clone())).await;
    assert_eq!(
        (mode(&data), mode(&data.join("client.key"))),
        (0o700, 0o600)
    );
}

#[tokio::test]
async fn where_a_key_can_not_be_stored_nothing_half_is_left_and_the_next_start_makes_one() {
    let (elsewhere, files) = (elsewhere().await, folder());
    let client = elsewhere.client(&files, &[]);
    let full = |call: &str| format!("inject={call}:error=ENOSPC");
    for call in ["fsync", "linkat"] {
        let inject = full(call);
        let runner = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
        let process = spawn(run_by(&runner, &client), files.clone());
        fails(process, &["client.key", "No space left"]).await;
        assert_eq!(names(&files), Vec::<String>::new(), "{call}");
    }
    // A quota: the write itself fails.
    let quota = "trap '' XFSZ && ulimit -f 0 && exec \"$@\"";
    let process = spawn(run_by(&["sh", "-c", quota, "-"], &client), files.clone());
    fails(process, &["client.key", "File too large"]).await;
    assert_eq!(names(&files), Vec::<String>::new());
    let nowhere = elsewhere.client(&files, &["--data-dir", "/proc/none"]);
    fails(spawn(nowhere, files.clone()), &["/proc/none/client.key"]).await;
    pair::serving(spawn(client, files.clone())).await;
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_stores_its_key_leaves_no_key_or_a_whole_one() {
    let (elsewhere, files) = (elsewhere().await, folder());
    for call in ["fsync", "linkat", "unlink"] {
        let inject = format!("inject={call}:signal=KILL:when=1");
        let runner = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
        let command = elsewhere.client(&files, &[]);
        let mut killed = spawn(run_by(&runner, &command), files.clone());
        killed.ends().await;
        let key = files.path().join("client.key");
        assert_eq!(key.exists(), call == "unlink", "{call}");
    }
    let flags = ["--require-key"];
    let whole = spawn(elsewhere.client(&files, &flags), files.clone());
    pair::serving(whole).await;
}

#[tokio::test]
async fn clients_that_are_killed_again_and_again_from_the_start_keep_one_identity() {
    let (elsewhere, files) = (elsewhere().await, folder());
    let mut ids = vec![];
    for _ in 0..20 {
        let mut killed = spawn(elsewhere.client(&files, &[]), files.clone());
        killed.signal(Signal::KILL);
        killed.ends().await;
        let key = files.path().join("client.key");
        if key.exists() {
            ids.push(pair::fingerprint(&key).label().to_string());
        }
    }
    let survivor = pair::serving(spawn(elsewhere.client(&files, &[]), files.clone())).await;
    assert!(
        ids.iter().all(|id| *id == survivor.id),
        "{ids:?}, {}",
        survivor.id
    );
}
