//! How an agent proves a second key on a tunnel whose TLS proved the first.
//!
//! The key signs what only the two ends of this TLS connection can know, its exporter (RFC 8446,
//! 7.5), so that neither a relay nor anybody between can show the proof elsewhere. What is signed
//! has the form of TLS 1.3's own CertificateVerify (RFC 8446, 4.4.3): 64 spaces, a text that names
//! the purpose, a zero byte, the exporter.

use data_encoding::BASE64;
use rustls::SignatureScheme;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ED25519};

use crate::wire::frame::Proof;

/// The label of the exporter from which [`Exporter`] comes.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-qtun-endpoint-proof";
/// What the signature is for.
const PURPOSE: &[u8] = b"qtun, proof of an endpoint's key";
/// The longest certificate that is looked at: a P-256 one has 400 bytes, with a private extension
/// some more.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
/// The longest signature: an Ed25519 one has 64 bytes, a P-256 one in DER up to 72.
const MAX_SIGNATURE_BYTES: usize = 80;
/// The signatures that an agent may prove a key with, in its handshake and here.
pub const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

/// 32 bytes that only the two ends of one TLS connection know; made with [`EXPORTER_LABEL`] and no
/// context.
pub type Exporter = [u8; 32];

/// The key can not sign.
#[derive(Debug, thiserror::Error)]
#[error("the key can not sign the proof of an endpoint: {0}")]
pub struct CanNotSign(#[from] rustls::Error);

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadProof {
    /// It is not made of base64 and a certificate, or is too long.
    #[error("the proof of the key can not be read")]
    Malformed,
    /// The key did not sign this connection.
    #[error("the key is not proved on this connection")]
    Signature,
}

impl Proof {
    /// Proves the key of `identity` on the connection of `exporter`.
    pub fn new(identity: &CertifiedKey, exporter: &Exporter) -> Result<Self, CanNotSign> {
        let unusable = || rustls::Error::General("its kind is not supported".to_owned());
        let signer = identity.key.choose_scheme(&SCHEMES).ok_or_else(unusable)?;
        let signature = signer.sign(&message(exporter))?;
        let certificate = identity.end_entity_cert()?;
        Ok(Self {
            certificate: BASE64.encode(certificate),
            signature: BASE64.encode(&signature),
        })
    }

    /// The certificate, if its key signed the connection of `exporter`.
    pub fn verify(&self, exporter: &Exporter) -> Result<CertificateDer<'static>, BadProof> {
        let certificate = decode(&self.certificate, MAX_CERTIFICATE_BYTES)?;
        let signature = decode(&self.signature, MAX_SIGNATURE_BYTES)?;
        let certificate = CertificateDer::from(certificate);
        let parsed = EndEntityCert::try_from(&certificate).map_err(|_| BadProof::Malformed)?;
        let message = message(exporter);
        let algorithms: [&dyn SignatureVerificationAlgorithm; 2] = [ECDSA_P256_SHA256, ED25519];
        let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            let verified = parsed.verify_signature(*algorithm, &message, &signature);
            verified.is_ok()
        };
        if algorithms.iter().any(signed) {
            Ok(certificate)
        } else {
            Err(BadProof::Signature)
        }
    }
}

fn decode(text: &str, max_bytes: usize) -> Result<Vec<u8>, BadProof> {
    if text.len() > BASE64.encode_len(max_bytes) {
        return Err(BadProof::Malformed);
    }
    BASE64
        .decode(text.as_bytes())
        .map_err(|_| BadProof::Malformed)
}

fn message(exporter: &Exporter) -> Vec<u8> {
    [&[b' '; 64], PURPOSE, &[0], exporter].concat()
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::tls;

    const HERE: Exporter = [1; 32];
    const ELSEWHERE: Exporter = [2; 32];

    fn identity(key: &KeyPair) -> CertifiedKey {
        tls::self_signed(key, &[]).expect("a certificate")
    }

    #[test]
    fn a_key_is_proved_on_one_connection_and_no_other() {
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        for key in [tls::generate_key().expect("a key"), ed25519] {
            let identity = identity(&key);
            let proof = Proof::new(&identity, &HERE).expect("signs");
            assert_eq!(proof.verify(&HERE).as_ref(), Ok(&identity.cert[0]));
            assert_eq!(proof.verify(&ELSEWHERE), Err(BadProof::Signature));
        }
    }

    #[test]
    fn a_certificate_without_its_key_proves_nothing() {
        let (own, other) = (tls::generate_key(), tls::generate_key());
        let own = identity(&own.expect("a key"));
        let copied = identity(&other.expect("a key"));
        let mut proof = Proof::new(&own, &HERE).expect("signs");
        proof.certificate = BASE64.encode(&copied.cert[0]);
        assert_eq!(proof.verify(&HERE), Err(BadProof::Signature));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let key = tls::generate_key().expect("a key");
        let good = Proof::new(&identity(&key), &HERE).expect("signs");
        let huge = BASE64.encode(&[0; MAX_CERTIFICATE_BYTES + 3]);
        for certificate in ["", "?", "AAAA", &huge] {
            let certificate = certificate.to_owned();
            let bad = Proof {
                certificate,
                ..good.clone()
            };
            assert_eq!(bad.verify(&HERE), Err(BadProof::Malformed));
        }
        let signature = BASE64.encode(&[0; 72]);
        let bad = Proof { signature, ..good };
        assert_eq!(bad.verify(&HERE), Err(BadProof::Signature));
        let unsupported = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        assert!(Proof::new(&identity(&unsupported), &HERE).is_err());
    }
}
