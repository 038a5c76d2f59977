//! Which certificates visitors are shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use tracing::warn;
use tunnel_client::config::{Certificates, Issued};
use tunnel_client::outward::Outward;
use tunnel_client::tls_mode::TlsMode;
use tunnel_common::acme::ca::{MAX_RENEW_DAYS, VALIDATION_PORT};
use tunnel_common::acme::chain::Chain;
use tunnel_common::acme::credentials::CredentialsFile;
use tunnel_common::acme::settings::Settings;
use tunnel_common::clock::Clock;
use tunnel_common::key::{self, DataDir, IfMissing, KeyError, Origin};
use tunnel_common::pem_pair::PemPair;

#[derive(Debug, clap::Args)]
pub(super) struct CertificateArgs {
    /// Order certificates that browsers trust (Let's Encrypt), and accept the authority's terms of service;
    /// the authority writes to this address about trouble with them
    #[arg(long, value_name = "ADDRESS")]
    acme_email: Option<String>,
    /// The same without an address
    #[arg(long)]
    acme: bool,
    /// Order none, whatever else is said
    #[arg(long)]
    no_acme: bool,
    /// File with the accounts at authorities; made if it is missing
    #[arg(long, value_name = "FILE", default_value = "acme_credentials.json")]
    acme_creds_path: PathBuf,
    /// Order from Let's Encrypt's staging environment: for trials, nobody trusts its certificates
    #[arg(long, conflicts_with = "acme_directory")]
    acme_staging: bool,
    /// File for the certificate that was issued, shared by agents with one key [default: acme_cert.pem, and
    /// acme_cert.staging.pem with --acme-staging]
    #[arg(long, value_name = "FILE")]
    cert_pem: Option<PathBuf>,
    /// Key file for the certificate, if it is not to be the identity's own; then a visitor can not tell any
    /// more from the name alone that the agent itself answers. Made if it is missing
    #[arg(long, value_name = "FILE")]
    cert_key: Option<PathBuf>,
    /// Days before its end at which a certificate is renewed [default: the authority says, or a third of
    /// its lifetime]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=MAX_RENEW_DAYS))]
    acme_renew_days: Option<u32>,
    /// Another authority, by the URL of its directory
    #[arg(long, value_name = "URL")]
    acme_directory: Option<String>,
    /// Certificate authorities (PEM) of which one must vouch for the authority's API, instead of the public
    /// ones
    #[arg(long, value_name = "FILE")]
    acme_ca_root: Option<PathBuf>,
    /// Id of the external account at the authority
    #[arg(long, value_name = "KID", requires = "acme_eab_hmac_file")]
    acme_eab_kid: Option<String>,
    /// File with the external account's key, in base64url
    #[arg(long, value_name = "FILE", requires = "acme_eab_kid")]
    acme_eab_hmac_file: Option<PathBuf>,
    /// Kind of certificate, of those that the authority offers
    #[arg(long, value_name = "NAME")]
    acme_profile: Option<String>,
    /// Port at which the authority comes to look, as seen from outside: 443, but for private ones
    #[arg(long, value_name = "PORT", default_value_t = VALIDATION_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    acme_validation_port: u16,
    /// A certificate chain of your own for visitors (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with_all = ["acme", "acme_email", "cert_key"])]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// What there is beside the flags.
pub(super) struct Circumstances<'a> {
    /// The identity's key.
    pub(super) key: &'a KeyPair,
    pub(super) tls: TlsMode,
    pub(super) data: &'a DataDir,
    /// What to do where there is no file of a key.
    pub(super) if_missing: IfMissing,
    /// How an authority is reached, and the names that are to be certified.
    pub(super) outward: Outward,
}

impl CertificateArgs {
    /// What the flags mean. Reads the files that are named, and makes the key for the certificate if it is
    /// to be another one and is missing. Where there are mistakes the result is of no use.
    pub(super) fn chosen(
        self,
        circumstances: Circumstances<'_>,
        mistakes: &mut Vec<String>,
    ) -> Certificates {
        let is_on = (self.acme || self.acme_email.is_some()) && !self.no_acme;
        if circumstances.tls == TlsMode::Passthrough {
            if is_on || self.tls_cert.is_some() {
                mistakes.push(
                    "--tls passthrough: visitors see the local service's certificate, and none that is \
                     ordered or brought here"
                        .to_owned(),
                );
            }
            return Certificates::SelfSigned;
        }
        if let (Some(chain), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let data = circumstances.data;
            return brought(data.file(chain), data.file(key), mistakes);
        }
        if is_on {
            return self.issued(circumstances, mistakes);
        }
        if !self.no_acme {
            self.tell_useless(mistakes);
        }
        Certificates::SelfSigned
    }

    /// Flags that say something of orders where nothing is ordered.
    fn tell_useless(&self, mistakes: &mut Vec<String>) {
        let given = [
            ("--acme-staging", self.acme_staging),
            ("--acme-directory", self.acme_directory.is_some()),
            ("--acme-ca-root", self.acme_ca_root.is_some()),
            ("--acme-eab-kid", self.acme_eab_kid.is_some()),
            ("--acme-profile", self.acme_profile.is_some()),
            ("--acme-renew-days", self.acme_renew_days.is_some()),
            ("--cert-key", self.cert_key.is_some()),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given) {
            mistakes.push(format!(
                "{flag}: certificates are ordered only with --acme-email ADDRESS, or --acme"
            ));
        }
    }

    fn issued(self, circumstances: Circumstances<'_>, mistakes: &mut Vec<String>) -> Certificates {
        let own = self.own_key(&circumstances);
        let own = own.map_err(|error| mistakes.push(format!("--cert-key: {error}")));
        let Circumstances {
            key, data, outward, ..
        } = circumstances;
        let (file, credentials) = (
            self.chain_file(data),
            CredentialsFile::new(data.file(&self.acme_creds_path)),
        );
        // Of another key than the one that is meant nothing is to be said.
        if let Ok(own) = &own {
            check(own.as_ref().unwrap_or(key), &file, mistakes);
        }
        let settings = self.settings(data);
        let any_name = settings.directory.is_some();
        let outward = match any_name {
            true => outward,
            false => outward.with_agents_in_public(),
        };
        let port = self.acme_validation_port;
        match settings.acme(credentials, port, Arc::new(outward), mistakes) {
            Some(acme) => Certificates::Issued(Box::new(Issued {
                acme,
                file,
                key: own.ok().flatten(),
                renew_days: self.acme_renew_days,
                any_name,
            })),
            None => Certificates::SelfSigned,
        }
    }

    /// A trial's certificate must not be taken for one that is trusted.
    fn chain_file(&self, data: &DataDir) -> PathBuf {
        let default = match self.acme_staging {
            true => "acme_cert.staging.pem",
            false => "acme_cert.pem",
        };
        data.file(self.cert_pem.as_deref().unwrap_or(default.as_ref()))
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

    /// The key for the certificate, if it is not to be the identity's.
    fn own_key(&self, circumstances: &Circumstances<'_>) -> Result<Option<KeyPair>, KeyError> {
        let Some(path) = self.cert_key.as_deref() else {
            return Ok(None);
        };
        let path = circumstances.data.file(path);
        let (key, origin) = key::load(&path, circumstances.if_missing)?;
        if origin == Origin::Made {
            warn!(
                "a new key was made: {}; it is for the certificate, keep it",
                path.display()
            );
        }
        Ok(Some(key))
    }
}

/// Whether authorities certify this key, and whether what is in `file` is for it.
fn check(key: &KeyPair, file: &Path, mistakes: &mut Vec<String>) {
    if !key::may_be_certified(key) {
        mistakes.push(
            "--acme: public authorities certify no Ed25519 key; give a key for the certificate by \
             --cert-key FILE (it is made if it is missing)"
                .to_owned(),
        );
    }
    if let Err(error) = Chain::read(file, key) {
        mistakes.push(format!("--cert-pem: {error}"));
    }
}

fn brought(chain: PathBuf, key: PathBuf, mistakes: &mut Vec<String>) -> Certificates {
    let files = PemPair { chain, key };
    match files.load(&Clock::system()) {
        Ok(first) => Certificates::Brought { files, first },
        Err(error) => {
            mistakes.push(format!("--tls-cert: {error}"));
            Certificates::SelfSigned
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;
    use rcgen::PKCS_ED25519;
    use tunnel_client::resolve::SystemResolver;
    use tunnel_common::tls;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        certificates: CertificateArgs,
    }

    fn chosen_with(
        key: &KeyPair,
        folder: &Path,
        tls: TlsMode,
        flags: &str,
    ) -> Result<Certificates, Vec<String>> {
        let all = ["client"].into_iter().chain(flags.split_whitespace());
        let only = Only::try_parse_from(all).expect("parses");
        let mut mistakes = vec![];
        let circumstances = Circumstances {
            key,
            tls,
            data: &DataDir::new(folder),
            if_missing: IfMissing::Make,
            outward: Outward::new(Arc::new(SystemResolver)),
        };
        let chosen = only.certificates.chosen(circumstances, &mut mistakes);
        if mistakes.is_empty() {
            Ok(chosen)
        } else {
            Err(mistakes)
        }
    }

    fn chosen(flags: &str) -> Result<Certificates, Vec<String>> {
        let folder = tempfile::tempdir().expect("a folder");
        let key = tls::generate_key().expect("a key");
        chosen_with(&key, folder.path(), TlsMode::Terminate, flags)
    }

    fn issued(flags: &str) -> Issued {
        match chosen(flags).expect("no mistake") {
            Certificates::Issued(issued) => *issued,
            other => panic!("{other:?}"),
        }
    }

    fn mistakes(flags: &str) -> String {
        chosen(flags).expect_err("a mistake").join("\n")
    }

    #[test]
    fn nothing_is_ordered_unless_the_user_says_so() {
        for flags in [
            "",
            "--no-acme",
            "--acme --no-acme",
            "--no-acme --acme-email a@b.example --acme-staging",
        ] {
            let chosen = chosen(flags).expect("no mistake");
            assert!(
                matches!(chosen, Certificates::SelfSigned),
                "{flags}: {chosen:?}"
            );
        }
        let text = mistakes("--acme-staging --acme-profile x --cert-key k");
        for flag in ["--acme-staging", "--acme-profile", "--cert-key"] {
            assert!(
                text.contains(&format!("{flag}: certificates are ordered only with")),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_or_a_flag_orders_from_lets_encrypt_for_public_names() {
        for flags in ["--acme", "--acme-email me@example.com"] {
            let issued = issued(flags);
            assert_eq!(
                issued.acme.authority.directory.host(),
                "acme-v02.api.letsencrypt.org"
            );
            assert_eq!(issued.acme.validation_port, 443);
            assert!(
                !issued.any_name && issued.key.is_none() && issued.file.ends_with("acme_cert.pem")
            );
        }
    }

    #[tokio::test]
    async fn only_a_private_authority_certifies_who_is_in_the_local_network() {
        let cases = [
            ("--acme", true),
            ("--acme --acme-directory https://ca.example/dir", false),
        ];
        // Nobody listens where nobody may.
        let nobody = tokio::net::TcpSocket::new_v4().expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        nobody.bind(any).expect("binds");
        let port = nobody.local_addr().expect("bound").port();
        for (flags, is_kept_out) in cases {
            let dial = issued(flags).acme.authority.dial;
            let name = format!("{}.localhost", "a".repeat(26));
            let error = dial.dial(&name, port).await.expect_err("no way");
            let kept_out = error.kind() == ErrorKind::HostUnreachable;
            assert_eq!(kept_out, is_kept_out, "{flags}: {error}");
        }
    }

    #[test]
    fn what_is_issued_for_a_trial_has_a_file_of_its_own() {
        assert!(
            issued("--acme --acme-staging")
                .file
                .ends_with("acme_cert.staging.pem")
        );
        assert!(
            issued("--acme --acme-staging --cert-pem x.pem")
                .file
                .ends_with("x.pem")
        );
    }

    #[test]
    fn every_flag_reaches_the_orders() {
        let issued = issued(
            "--acme --acme-directory https://ca.example/dir --acme-profile short --acme-renew-days 9 \
             --acme-validation-port 5001 --cert-pem x.pem --cert-key other.key --acme-creds-path y.json",
        );
        assert_eq!(
            issued.acme.authority.directory.as_str(),
            "https://ca.example/dir"
        );
        assert_eq!(issued.acme.authority.profile.as_deref(), Some("short"));
        assert_eq!(
            (issued.renew_days, issued.acme.validation_port),
            (Some(9), 5001)
        );
        assert!(issued.any_name, "a private authority certifies any name");
        assert!(issued.key.is_some() && issued.file.ends_with("x.pem"));
        assert!(issued.acme.credentials.path().ends_with("y.json"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        fs::write(folder.path().join("acme_cert.pem"), "not a certificate").expect("writes");
        let creds = folder.path().join("acme_credentials.json");
        fs::write(&creds, "{}").expect("writes");
        fs::set_permissions(&creds, fs::Permissions::from_mode(0o644)).expect("is ours");
        let flags = "--acme-email nobody --acme-directory http://ca.example";
        let told = chosen_with(&key, folder.path(), TlsMode::Terminate, flags);
        let told = told.expect_err("mistakes").join("\n");
        for part in [
            "--acme-email",
            "--acme-directory",
            "--cert-pem",
            "--acme-creds-path",
            "Ed25519",
        ] {
            assert!(told.contains(part), "{part} is missing: {told}");
        }
        let kept = fs::read_to_string(folder.path().join("acme_cert.pem")).expect("reads");
        assert_eq!(kept, "not a certificate");
        let passthrough = chosen_with(&key, folder.path(), TlsMode::Passthrough, "--acme");
        let told = passthrough.expect_err("a mistake").join("\n");
        assert!(told.contains("--tls passthrough"), "{told}");
        assert!(mistakes("--tls-cert no-such.pem --tls-key no-such.key").contains("no-such.pem"));
    }
}
