//! `server`: the relay on a public host.

mod args;
mod clients;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tunnel_common::process::{self, EndSignals, exit};
use tunnel_server::server::Server;

use crate::args::{Args, Setup, Task};

fn main() -> ExitCode {
    process::init_log();
    process::run(program())
}

async fn program() -> u8 {
    let task = match Args::parse().into_task() {
        Ok(task) => task,
        Err(mistakes) => {
            error!("{mistakes}");
            return exit::USAGE;
        }
    };
    let done = match task {
        Task::Serve(setup) => serve(*setup).await,
        Task::Clients(clients) => clients.run(),
    };
    match done {
        Ok(()) => exit::ASKED,
        Err(error) => {
            error!("{}", process::in_full(error.as_ref()));
            exit::FAILED
        }
    }
}

async fn serve(setup: Setup) -> anyhow::Result<()> {
    // Before anything is said: who has read that it listens may end it.
    let mut signals = EndSignals::listen().context("signals can not be received")?;
    let server = Server::bind(&setup.config)?;
    let addresses = server.addresses();
    let mut lines = vec![
        format!("API: udp {}", addresses.api),
        format!("API: tcp {}", addresses.api),
    ];
    lines.extend(
        addresses
            .public
            .iter()
            .map(|address| format!("PUBLIC: tcp {address}")),
    );
    lines.push(format!("KEY: {}", server.fingerprint()));
    let (host, port) = (setup.reached_at, addresses.api.port());
    let trust = match setup.is_vouched_for {
        true => String::new(),
        false => format!(" --server-fingerprint {}", server.fingerprint()),
    };
    lines.push(format!(
        "CLIENT: client --server {host}:{port}{trust} --local 127.0.0.1:3000"
    ));
    writeln!(io::stdout(), "{}", lines.join("\n")).context("standard output is closed")?;

    let shutdown = CancellationToken::new();
    let running = server.run(shutdown.clone());
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        () = signals.asked() => {}
    }
    info!("ending, as asked; a second signal ends at once");
    shutdown.cancel();
    tokio::select! {
        ended = running => Ok(ended?),
        () = signals.asked() => Ok(()),
    }
}
