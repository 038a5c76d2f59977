//! A certificate authority of the user's own, and files that only their owner may read.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::agent::new_key;

/// A certificate authority of the user's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    /// A new one of this name.
    pub fn new(name: &str) -> Self {
        let key = new_key();
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signs");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its own certificate, as a list of authorities has it.
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// A certificate for `name`, and its key, both in PEM.
    pub fn sign(&self, name: &str) -> (String, String) {
        let key = new_key();
        (self.sign_key(name, &key), key.serialize_pem())
    }

    /// A certificate for `name` with this key, in PEM.
    pub fn sign_key(&self, name: &str, key: &KeyPair) -> String {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.signed_by(key, &self.issuer).expect("signs").pem()
    }
}

/// Writes `text` to a file that only its owner may read, and gives its name.
pub fn private(path: &Path, text: &str) -> String {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).expect("creates");
    file.write_all(text.as_bytes()).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}
