//! A certificate chain that was issued for one of our keys, as it is kept on the disk: PEM, the leaf first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::renewal::Validity;
use crate::hostname::Hostname;
use crate::identity::KeyFingerprint;
use crate::key::fingerprint;
use crate::private_file::{self, Guard};
use crate::tls::{self, CertificateError};

/// The longest chain that is read: a few certificates have under 10 KiB.
const MAX_CHAIN_BYTES: u64 = 64 * 1024;

/// A chain that fits its key.
#[derive(Clone, Debug)]
pub struct Chain {
    /// To be shown.
    pub certified: Arc<CertifiedKey>,
    /// When the leaf is valid.
    pub validity: Validity,
    /// Whom the leaf is for.
    pub names: Vec<String>,
    /// The whole as text.
    pub pem: String,
}

/// Why a text is no chain for a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadChain {
    /// It is no PEM.
    #[error("it can not be read as certificates in PEM: {0}")]
    Pem(pem::Error),
    /// It has none.
    #[error("it holds no certificate in PEM")]
    Empty,
    /// The leaf is no certificate.
    #[error("its first certificate can not be read")]
    Unreadable,
    /// It is another key's.
    #[error("its first certificate is for another key than {0}")]
    OtherKey(KeyFingerprint),
    /// It is another name's.
    #[error("its first certificate is not for {0}")]
    OtherName(Hostname),
    /// TLS can not use the key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Why a file is no chain for a key. It is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFileError {
    /// It can not be read.
    #[error("the certificate {path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is of no use.
    #[error(
        "the certificate {path} can not be used: {source}. Move it away, or give the key that it is for"
    )]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadChain,
    },
}

impl Chain {
    /// The chain in `pem`, whose leaf must be for `key`.
    pub fn parse(pem: &str, key: &KeyPair) -> Result<Self, BadChain> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
        let certificates: Vec<_> = certificates
            .collect::<Result<_, _>>()
            .map_err(BadChain::Pem)?;
        let leaf = certificates.first().ok_or(BadChain::Empty)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|_| BadChain::Unreadable)?;
        let (validity, names) = (validity(&parsed), names(&parsed));
        let ours = fingerprint(key);
        if KeyFingerprint::of_spki(parsed.public_key().raw) != ours {
            return Err(BadChain::OtherKey(ours));
        }
        let certified = tls::certified(certificates, tls::private_key(key))?;
        Ok(Self {
            certified: Arc::new(certified),
            validity,
            names,
            pem: pem.to_owned(),
        })
    }

    /// The chain in the file at `path`, or nothing if there is no such file. A file that others may change is
    /// an error. It blocks the thread.
    pub fn read(path: &Path, key: &KeyPair) -> Result<Option<Self>, ChainFileError> {
        let pem = match private_file::read(path, Guard::Trusted, MAX_CHAIN_BYTES) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(ChainFileError::Read { path, source });
            }
        };
        let parsed = Self::parse(&pem, key).map_err(|source| ChainFileError::Bad {
            path: path.to_owned(),
            source,
        });
        parsed.map(Some)
    }

    /// Stores it at `path`, whole or not at all, in place of a chain for the same `key` and for `host`. A file
    /// that holds something else is an error, and stays. It blocks the thread.
    pub fn write(&self, path: &Path, key: &KeyPair, host: &Hostname) -> io::Result<()> {
        private_file::update(path, MAX_CHAIN_BYTES, |old| {
            let old = old.map(|old| Self::parse(old, key)?.for_host(host));
            match old {
                Some(Err(other)) => Err(io::Error::other(format!("{other}; move it away"))),
                _ => Ok(Some(self.pem.clone())),
            }
        })
    }

    /// Whether the leaf is for `host`.
    pub fn is_for(&self, host: &Hostname) -> bool {
        let mut names = self
            .names
            .iter()
            .filter_map(|name| name.parse::<Hostname>().ok());
        names.any(|name| name == *host)
    }

    /// The same, if the leaf is for `host`.
    pub fn for_host(self, host: &Hostname) -> Result<Self, BadChain> {
        match self.is_for(host) {
            true => Ok(self),
            false => Err(BadChain::OtherName(host.clone())),
        }
    }
}

/// The dates of a certificate.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let time = |time: x509_parser::time::ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    };
    Validity {
        not_before: time(certificate.validity().not_before),
        not_after: time(certificate.validity().not_after),
    }
}

/// The DNS names that a certificate is for.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map(|extension| &extension.value.general_names);
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.into_iter().flatten().filter_map(dns).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::CertificateParams;

    use super::*;

    fn pem(key: &KeyPair) -> String {
        let mut params = CertificateParams::new(["X.example.com".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        params.self_signed(key).expect("signs").pem()
    }

    #[test]
    fn a_chain_tells_its_dates_and_names() {
        let key = tls::generate_key().expect("a key");
        let chain = Chain::parse(&pem(&key), &key).expect("is ours");
        assert_eq!(chain.validity.lifetime().as_secs(), 90 * 24 * 60 * 60);
        let host = |name: &str| name.parse().expect("a name");
        assert!(chain.is_for(&host("x.example.com")));
        let refused = chain.for_host(&host("y.example.com"));
        assert!(
            refused
                .expect_err("not for it")
                .to_string()
                .contains("y.example.com")
        );
    }

    #[test]
    fn what_is_of_no_use_is_an_error_that_names_the_file_and_leaves_it_alone() {
        let (key, other) = (
            tls::generate_key().expect("a key"),
            tls::generate_key().expect("a key"),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme_cert.pem");
        assert!(Chain::read(&path, &key).expect("nothing").is_none());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, says) in [
            (pem(&other).as_str(), "another key"),
            ("", "no certificate"),
            (broken, "can not be read"),
        ] {
            fs::write(&path, text).expect("writes");
            let error = Chain::read(&path, &key).expect_err("of no use").to_string();
            assert!(
                error.contains("acme_cert.pem") && error.contains(says),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let key = tls::generate_key().expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub/acme_cert.pem");
        let chain = Chain::parse(&pem(&key), &key).expect("is ours");
        let host = "x.example.com".parse().expect("a name");
        chain.write(&path, &key, &host).expect("writes");
        chain.write(&path, &key, &host).expect("replaces");
        let other = "y.example.com".parse().expect("a name");
        let error = chain.write(&path, &key, &other);
        assert!(
            error
                .expect_err("is of another name")
                .to_string()
                .contains("y.example.com")
        );
        let read = Chain::read(&path, &key).expect("reads").expect("is there");
        assert_eq!(read.pem, chain.pem);
        fs::write(&path, "notes").expect("writes");
        let error = chain.write(&path, &key, &host);
        let error = error.expect_err("is no chain of ours");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "notes");
    }
}
