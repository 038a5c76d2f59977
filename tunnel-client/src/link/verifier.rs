//! Applies the rule by which an agent knows its relay, in the handshake.
//!
//! Under every rule the relay must sign the handshake with the key that it shows (RFC 8446, 4.4.3).

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};
use tunnel_common::identity::KeyFingerprint;
use webpki_roots::TLS_SERVER_ROOTS;

use super::relay_trust::{Rule, Source};

/// Why no verifier can be made: the authorities are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// A certificate of the user's can not be an authority.
    #[error("a certificate authority for the relay can not be used: {0}")]
    Authority(#[source] Error),
    /// TLS refuses them.
    #[error("the relay's certificate can not be checked: {0}")]
    Build(#[from] rustls::server::VerifierBuilderError),
}

/// The verifier of this rule.
pub(crate) fn verifier(
    rule: &Rule,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierError> {
    let (known, source) = match rule {
        Rule::Authority(authorities) => return authority(authorities, provider),
        Rule::Key(expected) => (
            Arc::new(OnceLock::from(expected.key)),
            expected.source.clone(),
        ),
        Rule::FirstUse(first) => (first.clone(), Source::FirstSight),
    };
    Ok(Arc::new(OneKey {
        known,
        source,
        provider,
    }))
}

fn authority(
    authorities: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierError> {
    let mut roots = RootCertStore::empty();
    if authorities.is_empty() {
        roots.extend(TLS_SERVER_ROOTS.iter().cloned());
    }
    for authority in authorities {
        roots
            .add(authority.clone())
            .map_err(VerifierError::Authority)?;
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(builder.build()?)
}

/// A relay showed another key than it should.
#[derive(Debug, thiserror::Error)]
#[error(
    "THE RELAY'S KEY IS NOT THE EXPECTED ONE: it shows {shown}, but {source_} is {expected}. Either \
     somebody stands between, or the relay has a new key: ask its operator, who sees it as KEY at \
     the relay's start. To accept the new key, {accept}",
    source_ = name(.source_), accept = accept(.source_, .shown)
)]
pub(crate) struct WrongKey {
    shown: KeyFingerprint,
    expected: KeyFingerprint,
    source_: Source,
}

impl WrongKey {
    /// `shown` was shown where `expected` was, says `source`, to be expected.
    pub(crate) fn new(shown: KeyFingerprint, expected: KeyFingerprint, source: Source) -> Self {
        Self {
            shown,
            expected,
            source_: source,
        }
    }
}

fn name(source: &Source) -> String {
    match source {
        Source::User => "--server-fingerprint".to_owned(),
        Source::File { path, line } => format!("the known one ({}, line {line})", path.display()),
        Source::FirstSight => "the one seen first".to_owned(),
    }
}

fn accept(source: &Source, shown: &KeyFingerprint) -> String {
    match source {
        Source::User => format!("give --server-fingerprint {shown}"),
        Source::File { path, line } => format!(
            "remove line {line} of {}, or give --server-fingerprint {shown}",
            path.display()
        ),
        Source::FirstSight => format!("start anew, or give --server-fingerprint {shown}"),
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Result<KeyFingerprint, Error> {
    KeyFingerprint::of_certificate(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// Accepts one key, whatever its certificate says: a given one, or the first that is proved.
#[derive(Debug)]
struct OneKey {
    known: Arc<OnceLock<KeyFingerprint>>,
    source: Source,
    provider: Arc<CryptoProvider>,
}

impl OneKey {
    fn expect(&self, shown: KeyFingerprint, expected: KeyFingerprint) -> Result<(), Error> {
        if shown == expected {
            return Ok(());
        }
        let wrong = WrongKey::new(shown, expected, self.source.clone());
        // Not CertificateError::Other, whose Display hides the text.
        Err(Error::Other(OtherError(Arc::new(wrong))))
    }
}

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = fingerprint(end_entity)?;
        // Before the first key is believed its owner must prove it: that happens on the signature.
        let known = self.known.get().copied().unwrap_or(shown);
        self.expect(shown, known)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Tunnels speak TLS 1.3 only; nobody gets here.
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, certificate, signature, algorithms)?;
        let shown = fingerprint(certificate)?;
        // Two handshakes may have begun while no key was known: only one key becomes the known one.
        self.expect(shown, *self.known.get_or_init(|| shown))?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
