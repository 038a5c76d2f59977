//! What all programs of others need: to be found, and to be told what to do.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Where `make bench` installs what ours is compared with, beside the binaries.
const PEERS: &str = "../peers/bin";

/// A program that is not on this machine.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) &'static str);

/// A program to be compared with, as `make bench` has installed it or the machine has it.
pub(super) fn peer(name: &'static str) -> Result<Command, Missing> {
    let this = std::env::current_exe().expect("this is a file");
    let own = this.parent().map(|folder| folder.join(PEERS).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut found = own.into_iter().chain(others).filter(|path| path.is_file());
    let mut command = Command::new(found.next().ok_or(Missing(name))?);
    // Some tell of every visitor, to a pipe that nobody empties.
    command.env("RUST_LOG", "error");
    Ok(command)
}

/// Writes a file that one of them is to read.
pub(super) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("writes");
    path
}
