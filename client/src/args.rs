//! The command line of `client`, and what it means.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tunnel_client::config::{Config, DRAIN_GRACE, EndpointConfig};
use tunnel_common::hostname::Hostname;
use tunnel_common::key::DataDir;
use tunnel_common::process::Mistakes;
use tunnel_common::quic::Congestion;

use self::certificates::{CertificateArgs, Circumstances};
use self::identity::Identities;
use self::local::Local;
use self::proxy::Proxy;
use self::relay::Relay;
use self::verify::Verify;
use self::ways::Ways;
use crate::verify::Question;

mod certificates;
mod identity;
mod local;
mod mistakes;
mod proxy;
mod relay;
mod verify;
mod ways;

/// The longest time that may be given to the end: an hour, as long as a silent visit lives.
const MAX_DRAIN_SECONDS: u64 = 3600;

/// Publishes a local service through a relay, or several.
///
/// Standard output gets the lines `ID: …` and `URL: …` as soon as visitors can come, a URL for each relay.
#[derive(Debug, Parser)]
#[command(
    name = "client",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Try it out: a relay, an agent and a small local service in one process, on loopback
    #[cfg(feature = "demo")]
    Demo,
    /// Ask whether it is really the agent who answers at a public URL, by the key that its name is made of
    ///
    /// Standard output gets one line, which begins with `TRUE: `, `LYING: ` or `UNKNOWN: `. Exit codes: 0
    /// true, 1 unknown, 3 lying.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Publish {
    #[command(flatten)]
    relay: Relay,
    #[command(flatten)]
    proxy: Proxy,
    #[command(flatten)]
    local: Local,
    #[command(flatten)]
    identities: Identities,
    #[command(flatten)]
    certificates: CertificateArgs,
    /// Domain for the URL, of those that the relay serves [default: the first that it announces]
    #[arg(long)]
    domain_suffix: Option<Hostname>,
    /// Folder for what must survive a restart [default: $STATE_DIRECTORY, $XDG_STATE_HOME/client or .]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    ways: Ways,
    /// Congestion control towards the relay: bbr or cubic
    #[arg(long, default_value_t = Congestion::default())]
    congestion: Congestion,
    /// Mebibytes that a local service which does not read may pin [default: a quarter of the memory]
    #[arg(long)]
    memory_budget: Option<u64>,
    /// Seconds that visits have at the end to get the answers that they wait for; the relay gives them 30
    #[arg(long, value_name = "SECONDS", default_value_t = DRAIN_GRACE.as_secs(), value_parser = clap::value_parser!(u64).range(..=MAX_DRAIN_SECONDS))]
    drain_grace: u64,
    /// File that is there while visitors can come, with the URLs in it: for health checks
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What the command line means.
#[derive(Debug)]
pub(crate) enum Command {
    /// Publish a local service.
    Publish {
        /// The agent's configuration.
        config: Box<Config>,
        /// The file that is to be there while visitors can come.
        ready_file: Option<PathBuf>,
    },
    /// Show how it works.
    #[cfg(feature = "demo")]
    Demo,
    /// Ask who answers at a public URL.
    Verify(Box<Question>),
}

impl Args {
    /// Reads the files that are named, and makes the keys that are missing. `variable` looks up an
    /// environment variable.
    pub(crate) fn into_command(
        self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Command, Mistakes> {
        match self.command {
            #[cfg(feature = "demo")]
            Some(Subcommands::Demo) => Ok(Command::Demo),
            Some(Subcommands::Verify(verify)) => {
                let question = verify.into_question(variable)?;
                Ok(Command::Verify(Box::new(question)))
            }
            None => {
                let ready_file = self.publish.ready_file();
                let config = Box::new(self.publish.into_config(variable)?);
                Ok(Command::Publish { config, ready_file })
            }
        }
    }
}

impl Publish {
    fn data(&self) -> DataDir {
        DataDir::chosen(self.data_dir.as_deref(), "client")
    }

    fn ready_file(&self) -> Option<PathBuf> {
        let path = self.ready_file.as_deref();
        path.map(|path| self.data().file(path))
    }

    fn into_config(self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Config, Mistakes> {
        let data = self.data();
        let mut mistakes = vec![];
        let relays = self.relay.addresses();
        let (proxies, elsewhere) = self.proxy.chosen(relays, &data, variable, &mut mistakes);
        let relays = self.relay.chosen(proxies, &data, &mut mistakes);
        let local = self
            .local
            .chosen(self.identities.has_second(), &data, &mut mistakes);
        let if_missing = self.identities.if_missing();
        let endpoints = self.identities.endpoints(&local, &data, &mut mistakes);
        let outward = proxy::outward(elsewhere);
        let certificates = endpoints.as_ref().map(|(endpoint, _)| {
            let circumstances = Circumstances {
                key: &endpoint.key,
                tls: local.tls,
                data: &data,
                if_missing,
                outward: outward.clone(),
            };
            self.certificates.chosen(circumstances, &mut mistakes)
        });
        let (Some((mut endpoint, second)), Some(certificates), true) =
            (endpoints, certificates, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        endpoint.suffix = self.domain_suffix;
        let mut config = Config::through(relays, endpoint);
        config.second = second.map(|second| EndpointConfig {
            suffix: config.endpoint.suffix.clone(),
            ..second
        });
        config.certificates = certificates;
        config.known_relays = Some(relay::known(&data));
        config.dial = Arc::new(outward.with_agents_in_public());
        self.ways.apply(&mut config);
        config.congestion = self.congestion;
        config.timeouts.drain_grace = Duration::from_secs(self.drain_grace);
        if let Some(mebibytes) = self.memory_budget {
            config.memory_budget = mebibytes.saturating_mul(1 << 20);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
