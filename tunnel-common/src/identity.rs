//! Who somebody is: the fingerprint of a public key, and nothing else.
//!
//! One SHA-256 over the SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) serves in three spellings: the 32
//! bytes themselves ([`KeyFingerprint`]), the DNS label of an agent ([`Label`]), and the
//! `sha256//…` form that `curl --pinnedpubkey` knows, by which an agent trusts a relay.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{BASE64, Encoding, HEXLOWER, Specification};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

/// The prefix of the pinning form, as curl writes it.
const PIN_PREFIX: &str = "sha256//";
/// The bytes of a key's fingerprint that its DNS label shows: a label has room for 63 characters,
/// and 128 bits can not be met by chance or by search.
const LABEL_BYTES: usize = 16;

/// Lower-case base32 (RFC 4648, 6) without padding; it refuses trailing bits that are not zero, so
/// that each label has one spelling.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut base32 = Specification::new();
    base32.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    base32
        .encoding()
        .expect("32 distinct symbols make an encoding")
});

/// SHA-256 of a SubjectPublicKeyInfo: the name of whoever holds the private key.
///
/// `Display` and `FromStr` use the pinning form `sha256//<base64>`; `Debug` is hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyFingerprint([u8; 32]);

/// An agent's identity, as the relay's registry is keyed.
pub type ClientId = KeyFingerprint;

impl KeyFingerprint {
    /// The fingerprint of this SubjectPublicKeyInfo, in DER.
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(Sha256::digest(spki).into())
    }

    /// The fingerprint of the key inside `certificate`.
    ///
    /// The key is read by the parser that also verifies handshake signatures: a second parser could
    /// be led to another key by crafted DER. This proves nothing by itself; the handshake does.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, webpki::Error> {
        Ok(Self::of_spki(&public_key(certificate)?))
    }

    /// All 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The DNS label that stands for this key.
    pub fn label(&self) -> Label {
        let mut bytes = [0; LABEL_BYTES];
        bytes.copy_from_slice(&self.0[..LABEL_BYTES]);
        Label(bytes)
    }
}

/// The key inside `certificate`, as a SubjectPublicKeyInfo in DER.
pub fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, webpki::Error> {
    let parsed = EndEntityCert::try_from(certificate)?;
    Ok(parsed.subject_public_key_info().to_vec())
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Why a text is no fingerprint.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error(
    "a fingerprint is 'sha256//' and the base64 of 32 bytes, as curl's --pinnedpubkey takes it"
)]
pub struct BadFingerprint;

impl FromStr for KeyFingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let base64 = text.strip_prefix(PIN_PREFIX).ok_or(BadFingerprint)?;
        let bytes = BASE64
            .decode(base64.as_bytes())
            .map_err(|_| BadFingerprint)?;
        bytes.try_into().map(Self).map_err(|_| BadFingerprint)
    }
}

/// The first 128 bits of a fingerprint as a DNS label: 26 characters of lower-case base32.
///
/// This is the `<id>` of an agent's URL. Only the canonical spelling parses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label([u8; LABEL_BYTES]);

/// Why a text is no [`Label`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("an id is 26 characters of lower-case base32")]
pub struct BadLabel;

impl FromStr for Label {
    type Err = BadLabel;

    fn from_str(text: &str) -> Result<Self, BadLabel> {
        let bytes = BASE32.decode(text.as_bytes()).map_err(|_| BadLabel)?;
        bytes.try_into().map(Self).map_err(|_| BadLabel)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> KeyFingerprint {
        KeyFingerprint::of_spki(b"a key")
    }

    #[test]
    fn a_label_is_26_characters_and_comes_back() {
        let label = fingerprint().label();
        let text = label.to_string();
        assert_eq!(text.len(), 26);
        assert_eq!(text.parse(), Ok(label));
    }

    #[test]
    fn only_the_canonical_spelling_is_a_label() {
        let text = fingerprint().label().to_string();
        assert_eq!(text.to_uppercase().parse::<Label>(), Err(BadLabel));
        assert_eq!(text[1..].parse::<Label>(), Err(BadLabel));
        assert_eq!(format!("{text}a").parse::<Label>(), Err(BadLabel));
        assert_eq!("".parse::<Label>(), Err(BadLabel));
        let zero = "a".repeat(26);
        assert!(zero.parse::<Label>().is_ok());
        let trailing_bits = format!("{}b", "a".repeat(25));
        assert_eq!(trailing_bits.parse::<Label>(), Err(BadLabel));
    }

    #[test]
    fn the_pinning_form_is_the_one_that_curl_takes() {
        let text = fingerprint().to_string();
        assert!(
            text.starts_with("sha256//") && text.ends_with('='),
            "{text}"
        );
        assert_eq!(text.parse(), Ok(fingerprint()));
        for bad in ["", "sha256//", "sha256/AAAA", "sha256//AAAA", &text[2..]] {
            assert_eq!(bad.parse::<KeyFingerprint>(), Err(BadFingerprint), "{bad}");
        }
    }

    #[test]
    fn a_certificate_has_the_fingerprint_of_its_key() {
        use rcgen::PublicKeyData as _;
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .expect("signs");
        assert_eq!(
            KeyFingerprint::of_certificate(certificate.der()).expect("parses"),
            KeyFingerprint::of_spki(&key.subject_public_key_info()),
        );
    }
}
