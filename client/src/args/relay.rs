//! Which relays, and how to know them.

use std::path::PathBuf;

use tunnel_client::config::RelayConfig;
use tunnel_client::link::known_relays::KnownRelays;
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::proxy::outbound::OutboundProxy;
use tunnel_client::relay_addr::RelayAddr;
use tunnel_common::ca_file;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::key::DataDir;

use super::mistakes::tell_once;

/// The file in the data folder that says which relays were believed.
const KNOWN_RELAYS: &str = "known_relays";

#[derive(Debug, clap::Args)]
pub(super) struct Relay {
    /// The relay: host or host:port. May be repeated: the same is published through each of several
    /// relays
    #[arg(long, required = true)]
    server: Vec<RelayAddr>,
    /// The fingerprint of the relay's key, as the relay prints it; then nothing else counts, and
    /// nothing is recorded. For several relays: one for each --server, in the same order
    #[arg(long, value_name = "sha256//…", conflicts_with_all = ["server_ca", "trust_on_first_use"])]
    server_fingerprint: Vec<KeyFingerprint>,
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
    /// Where they are, in the user's order.
    pub(super) fn addresses(&self) -> &[RelayAddr] {
        &self.server
    }

    /// The relays, each through its proxy, with the rule of trust that the user names or the default.
    /// Where the flags make no sense the result is of no use.
    pub(super) fn chosen(
        self,
        proxies: Vec<Option<OutboundProxy>>,
        data: &DataDir,
        mistakes: &mut Vec<String>,
    ) -> Vec<RelayConfig> {
        self.tell_doubles(mistakes);
        self.tell_wrong_number(mistakes);
        let for_all = self.trust_of_all(data, mistakes);
        let mut pins = self.server_fingerprint.into_iter().map(RelayTrust::Pinned);
        let relays = self.server.into_iter().zip(proxies);
        let relays = relays.map(|(address, proxy)| {
            let default = RelayConfig::new(address);
            let named = pins.next().or_else(|| for_all.clone());
            RelayConfig {
                trust: named.unwrap_or(default.trust),
                proxy,
                ..default
            }
        });
        relays.collect()
    }

    fn tell_doubles(&self, mistakes: &mut Vec<String>) {
        for (at, relay) in self.server.iter().enumerate() {
            if self.server.iter().take(at).any(|before| before == relay) {
                tell_once(mistakes, format!("--server: {relay} is named twice"));
            }
        }
    }

    fn tell_wrong_number(&self, mistakes: &mut Vec<String>) {
        let (relays, pins) = (self.server.len(), self.server_fingerprint.len());
        if pins == 0 || pins == relays {
            return;
        }
        let write = |relay| format!("--server {relay} --server-fingerprint sha256//…");
        let all: Vec<_> = self.server.iter().map(write).collect();
        mistakes.push(format!(
            "--server-fingerprint: {pins} for {relays} relays; give one for each --server, in the same \
             order, or none: {}",
            all.join(" ")
        ));
    }

    /// The rule that the user names for all relays alike.
    fn trust_of_all(&self, data: &DataDir, mistakes: &mut Vec<String>) -> Option<RelayTrust> {
        if !self.server_fingerprint.is_empty() {
            return None;
        }
        // Whom to trust must not come up when the user has gone.
        let known = known(data);
        for error in self
            .server
            .iter()
            .filter_map(|relay| known.find(relay).err())
        {
            tell_once(mistakes, error.to_string());
        }
        if self.trust_on_first_use {
            return Some(RelayTrust::FirstUse);
        }
        let authorities = ca_file::read(&data.file(self.server_ca.as_deref()?));
        let told = |error| mistakes.push(format!("--server-ca: {error}"));
        authorities.map_err(told).ok().map(RelayTrust::PrivateCa)
    }
}
