//! A file of certificates by which somebody is known.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{Error, RootCertStore};

use crate::private_file::{self, Guard};

/// The longest file: the whole of the web's authorities has a quarter of it.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a file names no certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCaFile {
    /// It can not be read.
    #[error("{path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no PEM.
    #[error("{path} can not be read as certificates in PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// It has none.
    #[error("{0} holds no certificate in PEM")]
    Empty(PathBuf),
    /// One of them is none.
    #[error("certificate {number} in {path} can not be used: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        number: usize,
        /// Why.
        source: Error,
    },
}

/// Reads the certificates of a PEM file, at least one; what else is in it is passed over. A file that
/// others may change is an error.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadCaFile> {
    let read = private_file::read(path, Guard::Trusted, MAX_BYTES);
    let text = read.map_err(|source| BadCaFile::Read {
        path: path.to_owned(),
        source,
    })?;
    let parsed = CertificateDer::pem_slice_iter(text.as_bytes());
    let listed = parsed
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| BadCaFile::Pem {
            path: path.to_owned(),
            source,
        })?;
    if listed.is_empty() {
        return Err(BadCaFile::Empty(path.to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(&listed) {
        let added = roots.add(certificate.clone());
        added.map_err(|source| BadCaFile::Unusable {
            path: path.to_owned(),
            number,
            source,
        })?;
    }
    Ok(listed)
}
