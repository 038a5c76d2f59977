//! The relay's own certificate: what agents see in the handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tunnel_common::key::MAX_KEY_FILE_BYTES;
use tunnel_common::private_file::{self, Guard};
use tunnel_common::tls::{self, CertificateError};

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

/// Reads a certificate chain and its key from PEM files.
pub fn from_pem_files(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, PemError> {
    let read = |path: &Path, what| {
        let path = path.to_owned();
        move |source| PemError::Read { path, what, source }
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read(chain, "a certificate chain"))?;
    if certificates.is_empty() {
        return Err(PemError::Empty(chain.to_owned()));
    }
    let secret = private_file::read(key, Guard::Secret, MAX_KEY_FILE_BYTES);
    let secret = secret.map_err(|source| PemError::Unsafe {
        path: key.to_owned(),
        source,
    })?;
    let private = PrivateKeyDer::from_pem_slice(secret.as_bytes());
    let private = private.map_err(read(key, "a private key"))?;
    let certified = tls::certified(certificates, private);
    let certified = certified.map_err(|source| PemError::Pair {
        chain: chain.to_owned(),
        key: key.to_owned(),
        source,
    });
    certified.map(Arc::new)
}

/// A certificate that the relay signs itself, for these names.
pub fn self_signed(key: &KeyPair, names: &[String]) -> Result<Arc<CertifiedKey>, CertificateError> {
    tls::self_signed(key, names).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Pair {
        folder: tempfile::TempDir,
        key: KeyPair,
    }

    impl Pair {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let key = tls::generate_key().expect("a key");
            let certificate = rcgen::CertificateParams::new(["relay.example".to_owned()])
                .and_then(|params| params.self_signed(&key))
                .expect("signs");
            fs::write(folder.path().join("chain.pem"), certificate.pem()).expect("writes");
            let secret = folder.path().join("key.pem");
            private_file::create(&secret, key.serialize_pem().as_bytes()).expect("writes");
            Self { folder, key }
        }

        fn load(&self) -> Result<Arc<CertifiedKey>, PemError> {
            let path = self.folder.path();
            from_pem_files(&path.join("chain.pem"), &path.join("key.pem"))
        }
    }

    #[test]
    fn a_pair_of_files_is_the_relays_identity() {
        let pair = Pair::new();
        let shown = pair.load().expect("loads");
        let shown = tunnel_common::identity::KeyFingerprint::of_certificate(&shown.cert[0]);
        assert_eq!(
            shown.expect("parses"),
            tunnel_common::key::fingerprint(&pair.key)
        );
    }

    #[test]
    fn a_wrong_pair_is_refused_by_name() {
        let (pair, other) = (Pair::new(), Pair::new());
        let key = pair.folder.path().join("key.pem");
        fs::write(&key, other.key.serialize_pem()).expect("writes");
        let error = pair.load().expect_err("does not fit").to_string();
        assert!(
            error.contains("key.pem") && error.contains("chain.pem"),
            "{error}"
        );
        fs::write(&key, "").expect("writes");
        assert!(
            pair.load()
                .expect_err("no key")
                .to_string()
                .contains("key.pem")
        );
        fs::remove_file(&key).expect("removes");
        assert!(
            pair.load()
                .expect_err("no file")
                .to_string()
                .contains("key.pem")
        );
        fs::write(pair.folder.path().join("chain.pem"), "").expect("writes");
        assert!(
            pair.load()
                .expect_err("no chain")
                .to_string()
                .contains("chain.pem")
        );
    }
}
