//! Which relay, and how to know it.

use std::path::PathBuf;

use tunnel_client::ca_file;
use tunnel_client::link::known_relays::KnownRelays;
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::relay_addr::RelayAddr;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key::DataDir;

/// The file in the data folder that says which relays were believed.
const KNOWN_RELAYS: &str = "known_relays";

#[derive(Debug, clap::Args)]
pub(super) struct Relay {
    /// The relay: host or host:port
    #[arg(long, required = true)]
    server: Option<RelayAddr>,
    /// The fingerprint of the relay's key, as the relay prints it; then nothing else counts, and
    /// nothing is recorded
    #[arg(long, value_name = "sha256//…", conflicts_with_all = ["server_ca", "trust_on_first_use"])]
    server_fingerprint: Option<KeyFingerprint>,
    /// Certificate authorities (PEM) of which one must vouch for the relay, instead of the public ones
    #[arg(long, value_name = "FILE", conflicts_with = "trust_on_first_use")]
    server_ca: Option<PathBuf>,
    /// Believe the relay's key when it is first seen, and expect it from then on, though the relay has
    /// a public name; others are always known so
    #[arg(long)]
    trust_on_first_use: bool,
}

/// The file of known relays.
pub(super) fn known(data: &DataDir) -> KnownRelays {
    KnownRelays::new(data.path().join(KNOWN_RELAYS))
}

impl Relay {
    /// Where it is; the user must say so.
    pub(super) fn address(&self) -> Option<&RelayAddr> {
        self.server.as_ref()
    }

    /// The relay, and the rule of trust if the user names one.
    pub(super) fn chosen(
        self,
        data: &DataDir,
        mistakes: &mut Vec<String>,
    ) -> Option<(RelayAddr, Option<RelayTrust>)> {
        let relay = self.server.clone()?;
        let trust = self.trust(&relay, data);
        let trust = trust.map_err(|mistake| mistakes.push(mistake)).ok()?;
        Some((relay, trust))
    }

    fn trust(self, relay: &RelayAddr, data: &DataDir) -> Result<Option<RelayTrust>, String> {
        if let Some(pin) = self.server_fingerprint {
            return Ok(Some(RelayTrust::Pinned(pin)));
        }
        // Whom to trust must not come up when the user has gone.
        let known = known(data).find(relay);
        known.map_err(|error| error.to_string())?;
        if self.trust_on_first_use {
            return Ok(Some(RelayTrust::FirstUse));
        }
        let Some(file) = &self.server_ca else {
            return Ok(None);
        };
        let authorities = ca_file::read(&data.file(file));
        let authorities = authorities.map_err(|error| format!("--server-ca: {error}"))?;
        Ok(Some(RelayTrust::PrivateCa(authorities)))
    }
}
