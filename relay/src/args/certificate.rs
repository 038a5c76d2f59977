//! The relay's own certificate: brought, ordered from an authority, or signed with its own key.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::KeyPair;
use rustls::sign::CertifiedKey;
use tracing::warn;
use tunnel_common::acme::authority::DirectoryUrl;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::key::{self, DataDir, IfMissing, KeyError, Origin};
use tunnel_common::pem_pair::PemPair;
use tunnel_common::process;
use tunnel_server::acme::AcmeConfig;
use tunnel_server::cert;

use super::acme::Acme;
use crate::clients::KEY_FILE;

#[derive(Debug, clap::Args)]
pub(super) struct Certificate {
    /// The relay's certificate chain for agents (PEM), read again whenever it changes; without one the
    /// relay signs its own
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    acme: Acme,
    /// Fail if the relay's key file is missing, instead of making a new key
    #[arg(long)]
    require_key: bool,
}

/// What agents are shown.
pub(super) struct Chosen {
    /// The certificate of the start.
    pub(super) identity: Arc<CertifiedKey>,
    /// The files that it is in.
    pub(super) files: Option<PemPair>,
    /// How a better one is ordered.
    pub(super) acme: Option<AcmeConfig>,
}

impl Chosen {
    /// Whether everybody knows a relay that is reached at `host` by an authority, and needs no fingerprint.
    /// One whose first certificate is not there yet may be dialled before it is.
    pub(super) fn is_vouched_for(&self, host: &str) -> bool {
        let acme = self.acme.as_ref();
        acme.is_some_and(|acme| {
            let now = acme.ca.clock.now();
            let mut found = acme.found.iter();
            found.any(|chain| !chain.validity.is_over(now))
                && acme.ca.authority.directory == DirectoryUrl::lets_encrypt()
                && acme.host.as_str() == host
        })
    }
}

impl Certificate {
    /// The name that is to be certified, if one is.
    pub(super) fn domain(&self) -> Option<&Hostname> {
        self.acme.domain()
    }

    /// The certificate of a relay that is reached at `host`. Where the flags make no sense the result is of
    /// no use.
    pub(super) fn chosen(
        &self,
        host: &str,
        data: &DataDir,
        mistakes: &mut Vec<String>,
    ) -> Option<Chosen> {
        if let Some(files) = self.files(data) {
            let loaded = files.load(&Clock::system());
            let told = |error| mistakes.push(process::in_full(&error));
            return Some(Chosen {
                identity: loaded.map_err(told).ok()?,
                files: Some(files),
                acme: None,
            });
        }
        let ca = self.acme.ca(data, mistakes);
        let mut told = |why| mistakes.push(why);
        let key = self
            .key(data)
            .map_err(|error| told(process::in_full(&error)));
        let key = Arc::new(key.ok()?);
        let acme = ca.map(|ca| self.acme.config(ca, key.clone(), data));
        let identity = cert::self_signed(&key, &[host.to_owned()]).context("--advertise-host");
        let identity = identity.map_err(|error| told(process::in_full(error.as_ref())));
        Some(Chosen {
            identity: identity.ok()?,
            files: None,
            acme: acme.transpose().map_err(told).ok()?,
        })
    }

    fn files(&self, data: &DataDir) -> Option<PemPair> {
        Some(PemPair {
            chain: data.file(self.tls_cert.as_deref()?),
            key: data.file(self.tls_key.as_deref()?),
        })
    }

    fn key(&self, data: &DataDir) -> Result<KeyPair, KeyError> {
        let path = data.path().join(KEY_FILE);
        let (key, origin) = key::load(&path, IfMissing::required(self.require_key))?;
        if origin == Origin::Made {
            let fingerprint = key::fingerprint(&key);
            warn!(
                "a new key was made for this relay: {} ({fingerprint})",
                path.display()
            );
        }
        Ok(key)
    }
}
