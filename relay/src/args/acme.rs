//! A certificate for the relay from a certificate authority.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::KeyPair;
use tunnel_common::acme::ca::{self, MAX_RENEW_DAYS, VALIDATION_PORT};
use tunnel_common::acme::credentials::CredentialsFile;
use tunnel_common::acme::dial::Direct;
use tunnel_common::acme::settings::Settings;
use tunnel_common::hostname::Hostname;
use tunnel_common::key::{self, DataDir};
use tunnel_server::acme::AcmeConfig;

/// Where the chain is kept, in the data folder.
const CHAIN_FILE: &str = "server_acme_cert.pem";
/// The same for trials: what nobody trusts must not be taken for the other.
const STAGING_CHAIN_FILE: &str = "server_acme_cert.staging.pem";

#[derive(Debug, clap::Args)]
pub(super) struct Acme {
    /// Name of this relay for which it gets a certificate, by ACME, from Let's Encrypt or
    /// --acme-directory: that accepts the authority's terms. Also a --domain-suffix if there is no other
    #[arg(long, value_name = "NAME", conflicts_with = "tls_cert")]
    acme_domain: Option<Hostname>,
    /// Address to which the authority may write
    #[arg(long, value_name = "ADDRESS", requires = "acme_domain")]
    acme_email: Option<String>,
    /// Where the account at the authority is kept; made if it is missing
    #[arg(
        long,
        value_name = "FILE",
        requires = "acme_domain",
        default_value = "server_acme_creds.json"
    )]
    acme_creds_path: PathBuf,
    /// Let's Encrypt's environment for trials: nobody trusts its certificates, and its limits are wide
    #[arg(long, requires = "acme_domain", conflicts_with = "acme_directory")]
    acme_staging: bool,
    /// How many days before its end the certificate is renewed [default: what the authority says, or a
    /// third of its lifetime]
    #[arg(long, value_name = "DAYS", requires = "acme_domain", value_parser = clap::value_parser!(u32).range(1..=MAX_RENEW_DAYS))]
    acme_renew_days: Option<u32>,
    /// The directory of another authority
    #[arg(long, value_name = "URL", requires = "acme_domain")]
    acme_directory: Option<String>,
    /// Authorities (PEM) of which one must vouch for that directory, instead of the public ones
    #[arg(long, value_name = "FILE", requires = "acme_domain")]
    acme_ca_root: Option<PathBuf>,
    /// The id of the customer's account to which the authority binds ours
    #[arg(long, value_name = "KID", requires_all = ["acme_domain", "acme_eab_hmac_file"])]
    acme_eab_kid: Option<String>,
    /// The file with the key of that account, in base64url
    #[arg(long, value_name = "FILE", requires_all = ["acme_domain", "acme_eab_kid"])]
    acme_eab_hmac_file: Option<PathBuf>,
    /// The kind of certificate, of those that the authority offers
    #[arg(long, value_name = "NAME", requires = "acme_domain")]
    acme_profile: Option<String>,
    /// The port to which a private authority comes to look, as it is seen from outside
    #[arg(long, value_name = "PORT", requires = "acme_domain", default_value_t = VALIDATION_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    acme_validation_port: u16,
}

impl Acme {
    /// The name that is to be certified, if one is.
    pub(super) fn domain(&self) -> Option<&Hostname> {
        self.acme_domain.as_ref()
    }

    /// Who certifies it. Where the flags make no sense there is nobody.
    pub(super) fn ca(&self, data: &DataDir, mistakes: &mut Vec<String>) -> Option<ca::Acme> {
        self.domain()?;
        let credentials = CredentialsFile::new(data.file(&self.acme_creds_path));
        let port = self.acme_validation_port;
        let settings = self.settings(data);
        settings.acme(credentials, port, Arc::new(Direct), mistakes)
    }

    fn settings(&self, data: &DataDir) -> Settings {
        let hmac = self.acme_eab_hmac_file.as_deref();
        let hmac = hmac.map(|file| data.file(file));
        Settings {
            email: self.acme_email.clone(),
            staging: self.acme_staging,
            directory: self.acme_directory.clone(),
            ca_root: self.acme_ca_root.as_deref().map(|file| data.file(file)),
            external_account: self.acme_eab_kid.clone().zip(hmac),
            profile: self.acme_profile.clone(),
        }
    }

    /// What is to be ordered from `ca` for `key`, with the chain that is there.
    pub(super) fn config(
        &self,
        ca: ca::Acme,
        key: Arc<KeyPair>,
        data: &DataDir,
    ) -> Result<AcmeConfig, String> {
        let host = self.domain().cloned().ok_or("--acme-domain is missing")?;
        if !key::may_be_certified(&key) {
            return Err(
                "--acme-domain: the relay's key is an Ed25519 key, which certificate authorities do not \
                 certify; put a P-256 key in its place, or give the relay another --data-dir"
                    .to_owned(),
            );
        }
        let config = AcmeConfig {
            host,
            key,
            ca,
            file: data.path().join(match self.acme_staging {
                true => STAGING_CHAIN_FILE,
                false => CHAIN_FILE,
            }),
            found: None,
            renew_days: self.acme_renew_days,
        };
        config.find().map_err(|error| error.to_string())
    }
}
