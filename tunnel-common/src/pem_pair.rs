//! A certificate chain and its private key in two PEM files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::key::MAX_KEY_FILE_BYTES;
use crate::private_file::{self, Guard};
use crate::tls::{self, CertificateError};

/// Why a certificate can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The file can not be read, or is no PEM of that kind.
    #[error("{path} can not be used as {what} in PEM: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// The key's file can not be read, or others may read or change it.
    #[error("{path} can not be used as a private key: {source}")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file has no certificate.
    #[error("{0} holds no certificate in PEM")]
    Empty(PathBuf),
    /// The two do not belong together, or the key is of no use.
    #[error("{chain} and {key} can not be used together: {source}")]
    Pair {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: CertificateError,
    },
}

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate, and behind it those that lead to an authority.
    pub chain: PathBuf,
    /// Its private key, which others may neither read nor change.
    pub key: PathBuf,
}

impl PemPair {
    /// Reads both files, and checks that they belong together.
    ///
    /// It blocks the thread for as long as the disk takes.
    pub fn load(&self) -> Result<Arc<CertifiedKey>, PemError> {
        let Self { chain, key } = self;
        let read = |path: &PathBuf, what| {
            let path = path.clone();
            move |source| PemError::Read { path, what, source }
        };
        let certificates = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(read(chain, "a certificate chain"))?;
        if certificates.is_empty() {
            return Err(PemError::Empty(chain.clone()));
        }
        let secret = private_file::read(key, Guard::Secret, MAX_KEY_FILE_BYTES);
        let secret = secret.map_err(|source| PemError::Unsafe {
            path: key.clone(),
            source,
        })?;
        let private = PrivateKeyDer::from_pem_slice(secret.as_bytes());
        let private = private.map_err(read(key, "a private key"))?;
        let certified = tls::certified(certificates, private);
        let certified = certified.map_err(|source| PemError::Pair {
            chain: chain.clone(),
            key: key.clone(),
            source,
        });
        certified.map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::identity::KeyFingerprint;
    use crate::key;

    /// A certificate, with its key.
    struct Made {
        certificate: rcgen::Certificate,
        key: KeyPair,
    }

    impl Made {
        fn new() -> Self {
            let key = tls::generate_key().expect("a key");
            let params = CertificateParams::new(["relay.example".to_owned()]).expect("a name");
            let certificate = params.self_signed(&key).expect("signs");
            Self { certificate, key }
        }

        /// Puts both into `folder`.
        fn put(&self, folder: &Path) -> PemPair {
            let pair = PemPair {
                chain: folder.join("chain.pem"),
                key: folder.join("key.pem"),
            };
            fs::write(&pair.chain, self.certificate.pem()).expect("writes");
            let secret = self.key.serialize_pem();
            private_file::create(&pair.key, secret.as_bytes()).expect("writes");
            pair
        }
    }

    fn refused(pair: &PemPair) -> String {
        let error = pair.load().expect_err("is refused");
        error.to_string()
    }

    #[test]
    fn a_pair_of_files_is_an_identity() {
        let (folder, made) = (tempfile::tempdir().expect("a folder"), Made::new());
        let shown = made.put(folder.path()).load();
        let shown = KeyFingerprint::of_certificate(&shown.expect("loads").cert[0]);
        assert_eq!(shown.expect("parses"), key::fingerprint(&made.key));
    }

    #[test]
    fn a_wrong_pair_is_refused_by_name() {
        let (folder, other) = (tempfile::tempdir().expect("a folder"), Made::new());
        let pair = Made::new().put(folder.path());
        fs::write(&pair.key, other.key.serialize_pem()).expect("writes");
        let error = refused(&pair);
        assert!(
            error.contains("key.pem") && error.contains("chain.pem"),
            "{error}"
        );
        fs::write(&pair.key, "").expect("writes");
        assert!(refused(&pair).contains("key.pem"));
        fs::remove_file(&pair.key).expect("removes");
        assert!(refused(&pair).contains("key.pem"));
        fs::write(&pair.chain, "").expect("writes");
        assert!(refused(&pair).contains("chain.pem"));
    }
}
