//! Starts a chain, and waits until a visitor gets his answer through it.

use std::path::PathBuf;
use std::time::Duration;

use e2e::ports;
use e2e::process::folder;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::chain::Chain;
use super::{bore, haproxy, ours, rathole};
use crate::load::curl;
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

/// Who has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Where `make bench` installs what ours is compared with, beside the binaries.
const PEERS: &str = "../peers/bin";

/// A program that is not on this machine.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) &'static str);

/// Starts `row` before `origin`.
pub(crate) async fn start(row: Row, place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let chain = match row {
        Row::Direct => direct(origin),
        Row::Haproxy => haproxy::start(place, origin)?,
        Row::Quic | Row::QuicCubic | Row::H2 => ours::start(row, place, origin).await,
        Row::Rathole => rathole::start(place, origin)?,
        Row::Bore => bore::start(place, origin)?,
    };
    answers(&chain, place).await;
    Ok(chain)
}

fn direct(origin: &Origin) -> Chain {
    Chain {
        row: Row::Direct,
        entrance: origin.tls,
        host: origin::NAME.to_owned(),
        relay: None,
        agent: None,
        ports: vec![],
    }
}

async fn answers(chain: &Chain, place: &Place) {
    let since = Instant::now();
    while !curl::answers(chain, place).await {
        let (row, log) = (chain.row.key(), chain.log());
        assert!(since.elapsed() < PATIENCE, "{row} does not answer: {log}");
        sleep(PAUSE).await;
    }
}

/// A program to be compared with, as `make bench` has installed it or the machine has it.
pub(crate) fn peer(name: &'static str) -> Result<Command, Missing> {
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

/// Ports for a program that must be told where to listen.
pub(crate) fn free_ports<const N: usize>() -> [ports::Reserved<std::net::TcpListener>; N] {
    [(); N].map(|()| ports::tcp())
}

/// A file in a folder of its own.
pub(crate) fn file(name: &str, text: &str) -> (std::sync::Arc<tempfile::TempDir>, PathBuf) {
    let folder = folder();
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("writes");
    (folder, path)
}
