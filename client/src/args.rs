//! The command line of `client`, and what it means.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Parser, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tracing::warn;
use tunnel_client::config::Config;
use tunnel_client::link::known_relays::KnownRelays;
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::local::LocalService;
use tunnel_client::relay_addr::RelayAddr;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key::{self, DataDir, IfMissing, KeyError, Origin};
use tunnel_common::process::Mistakes;
use tunnel_common::quic::Congestion;

/// The longest protocol name (RFC 7301, 3.1).
const MAX_ALPN_BYTES: usize = 255;
/// The longest extension: a relay takes certificates of 8 KiB.
const MAX_CLAIM_BYTES: usize = 7 * 1024;
/// The file in the data folder that says which relays were believed.
const KNOWN_RELAYS: &str = "known_relays";

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
    #[arg(long, value_name = "sha256//…", conflicts_with_all = ["server_ca", "trust_on_first_use"])]
    server_fingerprint: Option<KeyFingerprint>,
    /// Certificate authorities (PEM) of which one must vouch for the relay, instead of the public ones
    #[arg(long, value_name = "FILE", conflicts_with = "trust_on_first_use")]
    server_ca: Option<PathBuf>,
    /// Believe the relay's key when it is first seen, and expect it from then on, though the relay has
    /// a public name; others are always known so
    #[arg(long)]
    trust_on_first_use: bool,
    /// The local service: host:port, or a port of 127.0.0.1
    #[arg(long, default_value = "127.0.0.1:3000")]
    local: LocalService,
    /// Domain for the URL, of those that the relay serves [default: the first that it announces]
    #[arg(long)]
    domain_suffix: Option<Hostname>,
    /// The key file: the identity; made if it is missing
    #[arg(long, default_value = "client.key")]
    primary_key: PathBuf,
    /// Bytes for the private extension of the certificate that the relay sees, in hexadecimal
    #[arg(long, value_name = "HEX")]
    primary_cert_extension_hex: Option<Hex>,
    /// Fail if a key file is missing, instead of making a new identity
    #[arg(long)]
    require_key: bool,
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
        let data = DataDir::chosen(self.data_dir.as_deref(), "client");
        let known_relays = KnownRelays::new(data.path().join(KNOWN_RELAYS));
        let trust = self
            .trust(&data, &known_relays)
            .map_err(|mistake| mistakes.push(mistake))
            .ok();
        let (Some(server), Some(key), Some(trust), true) =
            (self.server, key, trust, mistakes.is_empty())
        else {
            return Err(Mistakes(mistakes));
        };
        let mut config = Config::new(server, key, self.local);
        config.known_relays = Some(known_relays);
        config.trust = trust.unwrap_or(config.trust);
        config.endpoint.claim = self.primary_cert_extension_hex.map(|hex| hex.0);
        config.congestion = self.congestion;
        config.endpoint.suffix = self.domain_suffix;
        let alpn = self.alpn.into_iter().filter(|name| !name.is_empty());
        config.endpoint.alpn = alpn.map(String::into_bytes).collect();
        if let Some(mebibytes) = self.memory_budget {
            config.memory_budget = mebibytes.saturating_mul(1 << 20);
        }
        Ok(config)
    }

    /// What the user says about the relay's key, if anything.
    fn trust(&self, data: &DataDir, known: &KnownRelays) -> Result<Option<RelayTrust>, String> {
        if let Some(pin) = self.server_fingerprint {
            return Ok(Some(RelayTrust::Pinned(pin)));
        }
        if let Some(relay) = &self.server {
            known.find(relay).map_err(|error| error.to_string())?;
        }
        if self.trust_on_first_use {
            return Ok(Some(RelayTrust::FirstUse));
        }
        let Some(file) = &self.server_ca else {
            return Ok(None);
        };
        let authorities = authorities(&data.file(file));
        let authorities = authorities.map_err(|error| format!("--server-ca: {error}"))?;
        Ok(Some(RelayTrust::PrivateCa(authorities)))
    }

    fn key(&self) -> Result<KeyPair, KeyError> {
        let data = DataDir::chosen(self.data_dir.as_deref(), "client");
        let path = data.file(&self.primary_key);
        let if_missing = if self.require_key {
            IfMissing::Fail
        } else {
            IfMissing::Make
        };
        let (key, origin) = key::load(&path, if_missing)?;
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

/// Bytes that are written in hexadecimal.
#[derive(Clone, Debug)]
struct Hex(Vec<u8>);

impl FromStr for Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        let bytes = bytes.map_err(|error| format!("this is not hexadecimal: {error}"))?;
        if bytes.len() > MAX_CLAIM_BYTES {
            return Err(format!("more than {MAX_CLAIM_BYTES} bytes"));
        }
        Ok(Self(bytes))
    }
}

/// The certificates in a PEM file, of which there must be one.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = read.map_err(|error| format!("{}: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    Ok(certificates)
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
