//! Applies the rule by which an agent knows its relay, in the handshake.
//!
//! Under every rule the relay must sign the handshake with the key that it shows (RFC 8446, 4.4.3).

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
};
use tunnel_common::identity::KeyFingerprint;
use webpki_roots::TLS_SERVER_ROOTS;

use super::relay_trust::{Expected, Rule, Source};

/// Why no verifier can be made: the authorities are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifierError {
    /// A certificate of the user's can not be an authority.
    #[error("a certificate authority for the relay can not be used: {0}")]
    Authority(#[source] Error),
    /// The user's authorities are none.
    #[error("no certificate authority for the relay is given")]
    NoAuthority,
    /// TLS refuses them.
    #[error("the relay's certificate can not be checked: {0}")]
    Build(#[from] rustls::server::VerifierBuilderError),
}

/// What a handshake leaves for whoever began it. Each has its own: no address speaks for another.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// On first sight: the key that was proved.
    pub(crate) proved: OnceLock<KeyFingerprint>,
    /// Why the key was not taken. The peer, which may be an impostor, hears nothing of it.
    pub(crate) wrong: OnceLock<WrongKey>,
}

/// The verifier of this rule for one handshake.
pub(crate) fn verifier(
    rule: &Rule,
    slots: Arc<Slots>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierError> {
    let expected = match rule {
        Rule::PublicAuthority => {
            let roots = TLS_SERVER_ROOTS.iter().cloned();
            return authority(roots.collect(), provider);
        }
        Rule::Authority(authorities) => return authority(roots(authorities)?, provider),
        Rule::Key(expected) => Some(expected.clone()),
        Rule::FirstUse => None,
    };
    Ok(Arc::new(OneKey {
        expected,
        slots,
        provider,
    }))
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, VerifierError> {
    if authorities.is_empty() {
        return Err(VerifierError::NoAuthority);
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let added = roots.add(authority.clone());
        added.map_err(VerifierError::Authority)?;
    }
    Ok(roots)
}

fn authority(
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(builder.build()?)
}

/// A relay showed another key than it should.
#[derive(Clone, Debug, thiserror::Error)]
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

/// Accepts one key, whatever its certificate says: the expected one, or any that is proved.
#[derive(Debug)]
struct OneKey {
    expected: Option<Expected>,
    slots: Arc<Slots>,
    provider: Arc<CryptoProvider>,
}

impl OneKey {
    fn expect(&self, shown: KeyFingerprint) -> Result<(), Error> {
        match &self.expected {
            Some(expected) if expected.key != shown => {
                let wrong = WrongKey::new(shown, expected.key, expected.source.clone());
                // A second one in the same handshake would be no other.
                let _ = self.slots.wrong.set(wrong);
                // QUIC sends the text of this error to the peer.
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
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
        self.expect(fingerprint(end_entity)?)?;
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
        self.expect(shown)?;
        // Not before its owner has proved it. A handshake has one signature.
        let _ = self.slots.proved.set(shown);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
