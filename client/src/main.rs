//! `client`: the agent beside a local service.

mod announce;
mod args;
#[cfg(feature = "demo")]
mod demo;
mod ready;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tunnel_client::client::{Client, RefusedByRelay};
use tunnel_client::config::Config;
use tunnel_common::process::{self, EndSignals, exit};

use crate::args::{Args, Command};
use crate::ready::ReadyFile;

fn main() -> ExitCode {
    process::init_log();
    process::raise_descriptor_limit();
    process::run(program())
}

async fn program() -> u8 {
    let command = match Args::parse().into_command(|name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(mistakes) => {
            error!("{mistakes}");
            return exit::USAGE;
        }
    };
    let outcome = match command {
        Command::Publish { config, ready_file } => publish(*config, ready_file).await,
        Command::Verify(question) => return verify::run(&question).await,
        #[cfg(feature = "demo")]
        Command::Demo => demo::run().await,
    };
    match outcome {
        Ok(()) => exit::ASKED,
        Err(error) => {
            error!("{}", process::in_full(error.as_ref()));
            if error.is::<RefusedByRelay>() {
                exit::REFUSED
            } else {
                exit::FAILED
            }
        }
    }
}

async fn publish(config: Config, ready_file: Option<PathBuf>) -> anyhow::Result<()> {
    let mut signals = EndSignals::listen().context("signals can not be received")?;
    let local = config.endpoint.local.to_string();
    let client = Client::new(config)?;
    info!(id = %client.id(), key = %client.key(), %local, "publishing");
    announce::on_a_thread(client.status()).context("no thread for standard output")?;
    let follow = |path| ReadyFile::follow(path, client.status());
    let _ready = ready_file.map(follow).transpose().context("--ready-file")?;
    let shutdown = CancellationToken::new();
    let running = client.run(shutdown.clone());
    tokio::pin!(running);
    loop {
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            () = signals.asked() => {
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                info!("ending, as asked; a second signal ends at once");
                shutdown.cancel();
            }
        }
    }
}
