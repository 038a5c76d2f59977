//! A certificate authority of a story's own, and files that only their owner may read.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::agent::new_key;

/// A root, and the key that signs with it.
pub struct Authority {
    root: Certificate,
    key_id: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A new one. It is valid for ever, as all that [`Authority::certificate`] makes.
pub fn authority() -> Authority {
    Authority::new("authority of a story")
}

impl Authority {
    /// A new one of this name: OpenSSL takes a leaf whose issuer is called as itself for self-signed.
    pub fn new(name: &str) -> Self {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).expect("signs");
        let key_id = params.key_identifier(&key);
        Self {
            root,
            key_id,
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.root.pem()
    }

    /// Its own certificate, as a list of authorities has it.
    pub fn der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// How certificates name its key (RFC 5280, 4.2.1.1).
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// What signs.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate for `key` with these names: hosts or addresses.
    pub fn certificate(&self, key: &KeyPair, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names).expect("names");
        leaf.signed_by(key, &self.issuer).expect("signs")
    }

    /// A certificate for `name`, and its key, both in PEM.
    pub fn sign(&self, name: &str) -> (String, String) {
        let key = new_key();
        (self.sign_key(name, &key), key.serialize_pem())
    }

    /// A certificate for `name` with this key, in PEM.
    pub fn sign_key(&self, name: &str, key: &KeyPair) -> String {
        self.certificate(key, &[name]).pem()
    }

    /// Writes into `folder` what a server needs: `cert.pem` for these names, its `key.pem`, and for
    /// its clients the root, `ca.pem`.
    pub fn certify(&self, folder: &Path, names: &[&str]) {
        let key = new_key();
        let files = [
            ("ca.pem", self.pem()),
            ("cert.pem", self.certificate(&key, names).pem()),
            ("key.pem", key.serialize_pem()),
        ];
        for (name, pem) in files {
            fs::write(folder.join(name), pem).expect("writes");
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
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
