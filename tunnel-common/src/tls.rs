//! TLS as both ends use it: the provider, certificates made from one's own key.

pub mod any_certificate;

use std::sync::Arc;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::{CryptoProvider, GetRandomFailed, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SupportedCipherSuite};

/// The private extension of an agent's certificate (RFC 5280, 4.2): not critical, and its value, an
/// OCTET STRING as every extension's, has the claim's bytes as they are.
pub const CLAIM_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 65535, 1];

/// The provider for every TLS configuration of the product, handed in explicitly each time: a
/// process-wide default would depend on what else is linked.
///
/// AES-128-GCM comes first where the CPU computes AES, ChaCha20 elsewhere: among equals it is the
/// cheaper one.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let first = if has_aes() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
    } else {
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    };
    provider
        .cipher_suites
        .sort_by_key(|suite: &SupportedCipherSuite| suite.suite() != first);
    Arc::new(provider)
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// Why a certificate could not be made from a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The names do not make a certificate, or the key does not sign.
    #[error("a self-signed certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The key's kind is not supported.
    #[error("the key can not be used for TLS: {0}")]
    Key(#[from] rustls::Error),
}

/// A certificate for `key`, signed by itself, for these host names or addresses.
///
/// It says no more than the key does. It is valid for ever, since neither end looks at the dates:
/// agents may have no clock.
pub fn self_signed(key: &KeyPair, names: &[String]) -> Result<CertifiedKey, CertificateError> {
    sign(key, CertificateParams::new(names)?)
}

/// A certificate without names that carries `claim` in our private extension, for a relay's
/// admission. It proves nothing but the key.
pub fn self_signed_with_claim(
    key: &KeyPair,
    claim: Option<&[u8]>,
) -> Result<CertifiedKey, CertificateError> {
    let mut params = CertificateParams::new([])?;
    let extension = |claim: &[u8]| CustomExtension::from_oid_content(CLAIM_OID, claim.to_vec());
    params.custom_extensions.extend(claim.map(extension));
    sign(key, params)
}

fn sign(key: &KeyPair, mut params: CertificateParams) -> Result<CertifiedKey, CertificateError> {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "tunnel");
    let certificate = params.self_signed(key)?;
    certified(vec![certificate.der().clone()], private_key(key))
}

/// A chain with its private key, ready for a TLS configuration. That they belong together is
/// checked.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertificateError> {
    let signer = provider().key_provider.load_private_key(key)?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(error) => Err(error.into()),
    }
}

/// The private half in the form that TLS takes.
pub(crate) fn private_key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Random bytes, fit for secrets. Fails only where the system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], GetRandomFailed> {
    let mut bytes = [0; N];
    provider().secure_random.fill(&mut bytes)?;
    Ok(bytes)
}

/// A new P-256 key.
pub fn generate_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeyFingerprint;
    use rcgen::PublicKeyData as _;

    #[test]
    fn the_cheapest_cipher_of_this_machine_is_offered_first() {
        let first = provider().cipher_suites[0].suite();
        let expected = if has_aes() {
            CipherSuite::TLS13_AES_128_GCM_SHA256
        } else {
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        };
        assert_eq!(first, expected);
    }

    #[test]
    fn a_self_signed_certificate_shows_the_keys_fingerprint() {
        let key = generate_key().expect("generates");
        let certified = self_signed(&key, &["x.example.com".into()]).expect("signs");
        assert_eq!(
            KeyFingerprint::of_certificate(&certified.cert[0]).expect("parses"),
            KeyFingerprint::of_spki(&key.subject_public_key_info()),
        );
    }

    #[test]
    fn a_chain_with_another_key_is_refused() {
        let key = generate_key().expect("generates");
        let other = generate_key().expect("generates");
        let chain = self_signed(&key, &[]).expect("signs").cert;
        assert!(certified(chain, private_key(&other)).is_err());
    }
}
