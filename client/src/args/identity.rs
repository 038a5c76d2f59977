//! Under which keys.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use rcgen::KeyPair;
use tracing::warn;
use tunnel_client::config::EndpointConfig;
use tunnel_client::local::LocalService;
use tunnel_client::tls_mode::TlsMode;
use tunnel_common::key::{self, DataDir, IfMissing, Origin};
use tunnel_common::wire::frame::EndpointRef;

use super::local::Chosen;

/// The longest extension: a relay takes certificates of 8 KiB.
const MAX_CLAIM_BYTES: usize = 7 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Identities {
    /// The key file: the identity; made if it is missing
    #[arg(long, default_value = "client.key")]
    primary_key: PathBuf,
    /// Bytes for the private extension of the certificate that the relay sees, in hexadecimal
    #[arg(long, value_name = "HEX")]
    primary_cert_extension_hex: Option<Hex>,
    /// The key file of a second identity on the same tunnel, whose visitors always get a self-signed
    /// certificate; made if it is missing
    #[arg(long)]
    secondary_key: Option<PathBuf>,
    /// The same as --primary-cert-extension-hex, for the second identity
    #[arg(long, value_name = "HEX", requires = "secondary_key")]
    secondary_cert_extension_hex: Option<Hex>,
    /// Fail if a key file is missing, instead of making a new identity
    #[arg(long)]
    require_key: bool,
}

impl Identities {
    /// Whether the user wants a second one.
    pub(super) fn has_second(&self) -> bool {
        self.secondary_key.is_some()
    }

    /// What to do where there is no file of a key.
    pub(super) fn if_missing(&self) -> IfMissing {
        IfMissing::required(self.require_key)
    }

    /// The endpoint to publish, and the second one if the user wants one.
    pub(super) fn endpoints(
        self,
        local: &Chosen,
        data: &DataDir,
        mistakes: &mut Vec<String>,
    ) -> Option<(EndpointConfig, Option<EndpointConfig>)> {
        let mut key = |flag: &str, file: &Path| {
            let key = self.key(&data.file(file));
            let key = key.map_err(|error| mistakes.push(format!("{flag}: {error}")));
            key.ok()
        };
        let primary = key("--primary-key", &self.primary_key);
        let secondary = self.secondary_key.as_deref();
        let secondary = secondary.map(|file| key("--secondary-key", file));
        let (primary, secondary) = match (primary, secondary) {
            (Some(primary), None) => (primary, None),
            (Some(primary), Some(Some(secondary))) => (primary, Some(secondary)),
            _ => return None,
        };
        let is_same = |second| key::fingerprint(second) == key::fingerprint(&primary);
        if secondary.as_ref().is_some_and(is_same) {
            mistakes.push("--secondary-key: this is the primary key".to_owned());
        }
        let claim = |hex: Option<Hex>| hex.map(|hex| hex.0);
        let first = EndpointConfig {
            claim: claim(self.primary_cert_extension_hex),
            tls: local.tls,
            ..endpoint(primary, &local.local, local)
        };
        let second = secondary.map(|key| EndpointConfig {
            name: EndpointRef::secondary(),
            claim: claim(self.secondary_cert_extension_hex),
            tls: TlsMode::Terminate,
            ..endpoint(key, &local.second, local)
        });
        Some((first, second))
    }

    fn key(&self, path: &Path) -> Result<KeyPair, key::KeyError> {
        let (key, origin) = key::load(path, self.if_missing())?;
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

fn endpoint(key: KeyPair, local: &LocalService, chosen: &Chosen) -> EndpointConfig {
    EndpointConfig {
        proxy_protocol: chosen.proxy_protocol,
        alpn: chosen.alpn.clone(),
        ..EndpointConfig::new(key, local.clone())
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
