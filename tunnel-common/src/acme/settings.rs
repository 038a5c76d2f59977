//! What a user says about the authority that is to certify: the same on the command lines of both ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use webpki_roots::TLS_SERVER_ROOTS;

use super::authority::{Authority, DirectoryUrl, ExternalAccount};
use super::ca::Acme;
use super::credentials::CredentialsFile;
use super::dial::Dial;
use crate::ca_file;
use crate::clock::Clock;
use crate::private_file::{self, Guard};

/// The longest file with the key of an external account: it has under 100 bytes.
const MAX_HMAC_BYTES: u64 = 4096;

/// What a user says about a certificate authority, word for word. By default it is Let's Encrypt, which is
/// told no more than it must be.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--acme-email`: where it may write to.
    pub email: Option<String>,
    /// `--acme-staging`: Let's Encrypt's environment for trials.
    pub staging: bool,
    /// `--acme-directory`: the URL of another one's directory. It comes before `staging`.
    pub directory: Option<String>,
    /// `--acme-ca-root`: a PEM file with the authorities of which one must vouch for its API, instead of
    /// the public ones.
    pub ca_root: Option<PathBuf>,
    /// `--acme-eab-kid` and `--acme-eab-hmac-file`: the customer's account to which ours is to be bound,
    /// and the file with its key.
    pub external_account: Option<(String, PathBuf)>,
    /// `--acme-profile`: the kind of certificate to order.
    pub profile: Option<String>,
}

impl Settings {
    /// The authority that is meant, to be reached by `dial`, our account there in `credentials`, and the port
    /// to which it comes. Every mistake is told, each with the flag that it is in.
    ///
    /// It reads the files, which blocks the thread, and asks nobody.
    pub fn acme(
        self,
        credentials: CredentialsFile,
        validation_port: u16,
        dial: Arc<dyn Dial>,
        mistakes: &mut Vec<String>,
    ) -> Option<Acme> {
        if let Err(error) = credentials.check() {
            mistakes.push(format!("--acme-creds-path: {error}"));
        }
        let told = |more| mistakes.extend::<Vec<_>>(more);
        Some(Acme {
            authority: self.authority(dial).map_err(told).ok()?,
            credentials,
            validation_port,
            clock: Clock::system(),
        })
    }

    /// The authority that is meant, to be reached by `dial`. An error holds every mistake, each with the
    /// flag that it is in.
    ///
    /// It reads the files, which blocks the thread, and asks nobody.
    pub fn authority(self, dial: Arc<dyn Dial>) -> Result<Authority, Vec<String>> {
        let mut mistakes = vec![];
        let directory = self.directory().map_err(|why| mistakes.push(why)).ok();
        let roots = self.roots().map_err(|why| mistakes.push(why)).ok();
        let external = self.external().map_err(|why| mistakes.push(why)).ok();
        if self.email.as_deref().is_some_and(|email| !is_email(email)) {
            mistakes.push("--acme-email: this is no e-mail address".to_owned());
        }
        match (directory, roots, external) {
            (Some(directory), Some(roots), Some(external_account)) if mistakes.is_empty() => {
                Ok(Authority {
                    directory,
                    email: self.email,
                    roots: Arc::new(roots),
                    external_account,
                    profile: self.profile,
                    dial,
                })
            }
            _ => Err(mistakes),
        }
    }

    fn directory(&self) -> Result<DirectoryUrl, String> {
        match &self.directory {
            Some(url) => url
                .parse()
                .map_err(|error| format!("--acme-directory: {error}")),
            None if self.staging => Ok(DirectoryUrl::lets_encrypt_staging()),
            None => Ok(DirectoryUrl::lets_encrypt()),
        }
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(file) = &self.ca_root else {
            return Ok(TLS_SERVER_ROOTS.iter().cloned().collect());
        };
        let listed = ca_file::read(file).map_err(|error| format!("--acme-ca-root: {error}"))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(listed);
        Ok(roots)
    }

    fn external(&self) -> Result<Option<ExternalAccount>, String> {
        let Some((kid, file)) = &self.external_account else {
            return Ok(None);
        };
        let account = external_account(kid, file);
        let told = |why| format!("--acme-eab-hmac-file: {}: {why}", file.display());
        account.map(Some).map_err(told)
    }
}

fn external_account(kid: &str, file: &Path) -> Result<ExternalAccount, String> {
    let hmac = private_file::read(file, Guard::Secret, MAX_HMAC_BYTES);
    let hmac = hmac.map_err(|error| error.to_string())?;
    if hmac.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let account = ExternalAccount::new(kid, &hmac);
    account.map_err(|error| format!("it is no key in base64url: {error}"))
}

/// Whether `text` looks like an address: the authority knows better.
fn is_email(text: &str) -> bool {
    let is_one = |part: &str| !part.is_empty() && !part.contains('@');
    let parts = text.split_once('@');
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    parts.is_some_and(|(name, domain)| is_one(name) && is_one(domain)) && !text.contains(is_blank)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::CertificateParams;

    use super::*;
    use crate::acme::dial::Direct;
    use crate::tls;

    fn authority(settings: Settings) -> Result<Authority, Vec<String>> {
        settings.authority(Arc::new(Direct))
    }

    #[test]
    fn without_a_word_it_is_lets_encrypt_and_public_authorities_vouch_for_it() {
        let chosen = authority(Settings::default()).expect("is complete");
        assert_eq!(chosen.directory, DirectoryUrl::lets_encrypt());
        assert_eq!(chosen.roots.len(), TLS_SERVER_ROOTS.len());
        assert!(chosen.email.is_none() && chosen.profile.is_none());
        let staging = Settings {
            staging: true,
            ..Settings::default()
        };
        let chosen = authority(staging).expect("is complete");
        assert_eq!(chosen.directory, DirectoryUrl::lets_encrypt_staging());
    }

    #[test]
    fn what_is_said_reaches_the_authority() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        let root = CertificateParams::new(["ca.example".to_owned()]).expect("names");
        let root = root.self_signed(&tls::generate_key().expect("a key"));
        fs::write(file("ca.pem"), root.expect("signs").pem()).expect("writes");
        private_file::create(&file("hmac"), b"c2VjcmV0IQ==\n").expect("writes");
        let chosen = authority(Settings {
            email: Some("me@example.com".to_owned()),
            directory: Some("https://ca.example/dir".to_owned()),
            ca_root: Some(file("ca.pem")),
            external_account: Some(("kid-1".to_owned(), file("hmac"))),
            profile: Some("shortlived".to_owned()),
            ..Settings::default()
        });
        let chosen = chosen.expect("is complete");
        assert_eq!(chosen.directory.as_str(), "https://ca.example/dir");
        assert_eq!(chosen.roots.len(), 1);
        assert_eq!(
            (chosen.email.as_deref(), chosen.profile.as_deref()),
            (Some("me@example.com"), Some("shortlived"))
        );
        let account = ExternalAccount::new("kid-1", "c2VjcmV0IQ").expect("decodes");
        assert_eq!(chosen.external_account, Some(account));
    }

    #[test]
    fn all_mistakes_are_told_at_once_each_with_its_flag() {
        let folder = tempfile::tempdir().expect("a folder");
        let hmac = folder.path().join("hmac");
        let mistakes = |secret: &str| {
            let _ = fs::remove_file(&hmac);
            private_file::create(&hmac, secret.as_bytes()).expect("writes");
            let refused = authority(Settings {
                email: Some("nobody".to_owned()),
                directory: Some("http://ca.example".to_owned()),
                ca_root: Some(folder.path().join("no-such.pem")),
                external_account: Some(("kid-1".to_owned(), hmac.clone())),
                ..Settings::default()
            });
            refused.expect_err("all is wrong")
        };
        let told = mistakes("not base64!");
        for part in [
            "--acme-email",
            "--acme-directory",
            "--acme-ca-root",
            "no-such.pem",
            "--acme-eab-hmac-file",
            "hmac",
        ] {
            assert!(told.iter().any(|told| told.contains(part)), "{told:?}");
        }
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(!told.concat().contains("not base64!"), "it is a secret");
        assert!(mistakes("\n").concat().contains("it is empty"));
    }

    #[test]
    fn an_address_has_one_at_and_no_blanks() {
        for good in ["a@b", "me+acme@mail.example.com"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "mailto:a"] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }
}
