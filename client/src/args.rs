//! The command line of `client`, and what it means.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rcgen::KeyPair;
use tracing::warn;
use tunnel_client::config::{Config, RelayAddr};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::local::LocalService;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key::{self, DataDir, KeyError, Origin};
use tunnel_common::process::Mistakes;
use tunnel_common::quic::Congestion;

/// The longest protocol name (RFC 7301, 3.1).
const MAX_ALPN_BYTES: usize = 255;

/// Publishes a local service through a relay.
///
/// Standard output gets the lines `ID: …` and `URL: …` as soon as visitors can come.
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
    publish: Option<Publish>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Try it out: a relay, an agent and a small local service in one process, on loopback
    #[cfg(feature = "demo")]
    Demo,
}

#[derive(Debug, clap::Args)]
struct Publish {
    /// The relay: host or host:port
    #[arg(long, required = true)]
    server: Option<RelayAddr>,
    /// The fingerprint of the relay's key, as the relay prints it; then nothing else counts
    #[arg(long, value_name = "sha256//…")]
    server_fingerprint: Option<KeyFingerprint>,
    /// The local service: host:port, or a port of 127.0.0.1
    #[arg(long, default_value = "127.0.0.1:3000")]
    local: LocalService,
    /// Domain for the URL, of those that the relay serves [default: the first that it announces]
    #[arg(long)]
    domain_suffix: Option<Hostname>,
    /// The key file: the identity; made if it is missing
    #[arg(long, default_value = "client.key")]
    primary_key: PathBuf,
    /// Folder for what must survive a restart [default: $STATE_DIRECTORY, $XDG_STATE_HOME/client or .]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Protocols offered to visitors (ALPN), best first, by comma; empty offers none
    #[arg(long, value_delimiter = ',', default_value = "http/1.1")]
    alpn: Vec<String>,
    /// Congestion control towards the relay: bbr or cubic
    #[arg(long, default_value_t = Congestion::default())]
    congestion: Congestion,
    /// Mebibytes that a local service which does not read may pin [default: a quarter of the memory]
    #[arg(long)]
    memory_budget: Option<u64>,
}

/// What the command line means.
#[derive(Debug)]
pub(crate) enum Command {
    /// Publish a local service.
    Publish(Box<Config>),
    /// Show how it works.
    #[cfg(feature = "demo")]
    Demo,
}

impl Args {
    /// Reads the key, or makes one if there is none.
    pub(crate) fn into_command(self) -> Result<Command, Mistakes> {
        match (self.command, self.publish) {
            #[cfg(feature = "demo")]
            (Some(Subcommands::Demo), _) => Ok(Command::Demo),
            (_, Some(publish)) => publish.into_config().map(Box::new).map(Command::Publish),
            (_, None) => Err(Mistakes(vec!["--server is needed".to_owned()])),
        }
    }
}

impl Publish {
    fn into_config(self) -> Result<Config, Mistakes> {
        let mut mistakes = vec![];
        if let Some(name) = self.alpn.iter().find(|name| name.len() > MAX_ALPN_BYTES) {
            mistakes.push(format!(
                "--alpn: {name} has more than {MAX_ALPN_BYTES} bytes"
            ));
        }
        let key = self
            .key()
            .map_err(|error| mistakes.push(format!("--primary-key: {error}")))
            .ok();
        let (Some(server), Some(key), true) = (self.server, key, mistakes.is_empty()) else {
            return Err(Mistakes(mistakes));
        };
        let mut config = Config::new(server, key, self.local);
        config.congestion = self.congestion;
        config.endpoint.suffix = self.domain_suffix;
        let alpn = self.alpn.into_iter().filter(|name| !name.is_empty());
        config.endpoint.alpn = alpn.map(String::into_bytes).collect();
        if let Some(fingerprint) = self.server_fingerprint {
            config.trust = RelayTrust::Pinned(fingerprint);
        }
        if let Some(mebibytes) = self.memory_budget {
            config.memory_budget = mebibytes.saturating_mul(1 << 20);
        }
        Ok(config)
    }

    fn key(&self) -> Result<KeyPair, KeyError> {
        let data = DataDir::chosen(self.data_dir.as_deref(), "client");
        let path = data.file(&self.primary_key);
        let (key, origin) = key::load_or_make(&path)?;
        if origin == Origin::Made {
            let id = key::fingerprint(&key).label();
            warn!(
                "a new key was made: {}; it is the identity {id}, keep it",
                path.display()
            );
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(folder: &tempfile::TempDir, flags: &str) -> Result<Config, Mistakes> {
        let data_dir = [
            "client",
            "--data-dir",
            folder.path().to_str().expect("UTF-8"),
        ];
        let args = data_dir.into_iter().chain(flags.split_whitespace());
        match Args::try_parse_from(args).expect("parses").into_command()? {
            Command::Publish(config) => Ok(*config),
            #[cfg(feature = "demo")]
            Command::Demo => panic!("the demo was not asked for"),
        }
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn a_server_is_enough() {
        let config = parse(&folder(), "--server 127.0.0.1:4433").expect("is complete");
        assert_eq!(config.relay.to_string(), "127.0.0.1:4433");
        assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:3000");
        assert_eq!(config.endpoint.alpn, [b"http/1.1"]);
        assert_eq!(config.trust, RelayTrust::FirstUse);
    }

    #[test]
    fn flags_reach_the_configuration() {
        let pin = KeyFingerprint::of_spki(b"a key");
        let flags = format!(
            "--server relay.example --server-fingerprint {pin} --local 8080 --domain-suffix a.example \
             --alpn h2,http/1.1 --memory-budget 7 --congestion cubic"
        );
        let config = parse(&folder(), &flags).expect("is complete");
        assert_eq!(config.relay.to_string(), "relay.example:4433");
        assert_eq!(config.trust, RelayTrust::Pinned(pin));
        assert_eq!(config.endpoint.local.to_string(), "127.0.0.1:8080");
        assert_eq!(config.endpoint.alpn, [&b"h2"[..], b"http/1.1"]);
        assert_eq!(config.endpoint.suffix, "a.example".parse().ok());
        assert_eq!(config.memory_budget, 7 << 20);
        assert_eq!(config.congestion, Congestion::Cubic);
    }

    #[test]
    fn the_key_stays_the_same_and_a_corrupt_one_is_a_mistake() {
        let folder = folder();
        let id = |folder| {
            let config = parse(folder, "--server x").expect("is complete");
            key::fingerprint(&config.endpoint.key)
        };
        assert_eq!(id(&folder), id(&folder));
        std::fs::write(folder.path().join("client.key"), "rubbish").expect("writes");
        let mistakes = parse(&folder, "--server x")
            .expect_err("is corrupt")
            .to_string();
        assert!(mistakes.contains("client.key"), "{mistakes}");
    }

    #[test]
    fn a_server_is_needed_unless_it_is_the_demo() {
        assert!(Args::try_parse_from(["client", "--local", "80"]).is_err());
        assert!(Args::try_parse_from(["client"]).is_err());
        #[cfg(feature = "demo")]
        assert!(matches!(
            Args::try_parse_from(["client", "demo"])
                .expect("parses")
                .into_command(),
            Ok(Command::Demo)
        ));
    }
}
