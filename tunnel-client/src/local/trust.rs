//! How a local service that speaks TLS is known: by exactly one rule.
//!
//! Under every rule it must sign the handshake with the key of the certificate that it shows.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tunnel_common::ca_file::{self, BadCaFile};
use tunnel_common::tls;
use webpki_roots::TLS_SERVER_ROOTS;

/// The rule by which a local service is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalTrust {
    /// A public certificate authority vouches for its name.
    #[default]
    PublicCa,
    /// One of these vouches for it.
    Listed(Listed),
    /// Whoever answers is believed: encrypted, and to whom is not known.
    Anything,
}

/// Certificates from a file. Each counts in two ways:
///
/// * as an authority: it vouches for a chain that leads to it, with the name and the dates checked;
/// * as itself: a local service that shows exactly this certificate is known by it, whatever name
///   and dates are in it. So a self-signed certificate may stand here alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Listed(Arc<[CertificateDer<'static>]>);

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.len())
    }
}

impl Listed {
    /// Reads the certificates of a PEM file. Whoever holds the key of one of them can vouch for others.
    pub fn from_pem_file(path: &Path) -> Result<Self, BadCaFile> {
        Ok(Self(ca_file::read(path)?.into()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.0.iter().cloned());
        roots
    }
}

impl LocalTrust {
    /// The verifier of this rule.
    pub(super) fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        let roots = match self {
            Self::Listed(listed) => listed.roots(),
            Self::PublicCa | Self::Anything => RootCertStore {
                roots: TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .build()
            .expect("there are roots, and no revocation lists");
        match self {
            Self::PublicCa => chain,
            Self::Listed(_) | Self::Anything => {
                let trust = self.clone();
                Arc::new(Beyond { trust, chain })
            }
        }
    }

    /// Whether a certificate is believed for itself.
    fn knows(&self, shown: &CertificateDer<'_>) -> bool {
        match self {
            Self::PublicCa => false,
            Self::Listed(listed) => listed.0.contains(shown),
            Self::Anything => true,
        }
    }
}

/// Believes what the rule believes for itself, and what a chain vouches for. Signatures are checked
/// in any case.
#[derive(Debug)]
struct Beyond {
    trust: LocalTrust,
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Beyond {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trust.knows(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain
            .verify_server_cert(shown, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, shown, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
