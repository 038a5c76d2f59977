//! Agents by the thousand, in a process of their own: `bench agents COUNT ROW RELAY KEY`.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use e2e::agent::{Agent, config_at, new_key, start};
use e2e::poll::pass;
use e2e::transport::Over;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::process::raise_descriptor_limit;

use crate::chains::chain::Api;
use crate::chains::ours::POOL;
use crate::row::Row;

/// What the first argument is.
pub(crate) const COMMAND: &str = "agents";
/// Said when all serve.
const READY: &str = "READY";
/// Handshakes a second: a relay takes 200, and the rest is left to those who measure.
const HANDSHAKES_PER_SECOND: usize = 150;
/// Nobody's local service: nobody visits them.
const LOCAL: &str = "127.0.0.1:9";
/// All serve within this, however many they are.
const LIMIT: Duration = Duration::from_secs(300);

/// Agents that serve in a process of their own. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Herd {
    _process: Child,
}

/// Starts so many agents, and waits until all serve; `None` and a word on standard error if they do not.
pub(crate) async fn herd(count: usize, row: Row, relay: &Api) -> Option<Herd> {
    let mut command = Command::new(std::env::current_exe().expect("has a name"));
    command.args([COMMAND, &count.to_string(), row.key()]);
    command.args([&relay.address.to_string(), &relay.key]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut process = command.spawn().expect("starts itself");
    let mut said = BufReader::new(process.stdout.take().expect("is piped")).lines();
    match timeout(LIMIT, said.next_line()).await {
        Ok(Ok(Some(line))) if line == READY => Some(Herd { _process: process }),
        other => {
            eprintln!("{count} agents do not all serve: {other:?}");
            None
        }
    }
}

/// Runs agents as the arguments say, until standard input ends.
pub(crate) async fn run(arguments: &[String]) -> Result<(), String> {
    let [count, row, api, key] = arguments else {
        return Err(format!("{COMMAND} COUNT ROW RELAY KEY"));
    };
    let wrong = |what: &str| format!("{COMMAND}: {what}?");
    let count: usize = count.parse().map_err(|_| wrong(count))?;
    let over = Row::ALL.into_iter().find(|known| known.key() == row);
    let over = over.ok_or_else(|| wrong(row))?.over();
    let handshakes = match over {
        Over::Quic => 1,
        Over::H2 => POOL,
    };
    let api: SocketAddr = api.parse().map_err(|_| wrong(api))?;
    let key: KeyFingerprint = key.parse().map_err(|_| wrong(key))?;
    raise_descriptor_limit();
    let pace = Duration::from_secs(1) * handshakes as u32 / HANDSHAKES_PER_SECOND as u32;
    let mut agents: Vec<Agent> = vec![];
    for _ in 0..count {
        let mut config = config_at(over, api, key, new_key(), LOCAL);
        config.pool_size = POOL as u16;
        agents.push(start(config));
        pass(pace).await;
    }
    for agent in &agents {
        agent.serves().await;
    }
    println!("{READY}");
    let ends = tokio::io::stdin().read_to_end(&mut vec![]).await;
    ends.map(|_| ()).map_err(|error| error.to_string())
}
