//! How an agent knows its relay: by exactly one rule, chosen before it dials.
//!
//! Under every rule the relay must sign the handshake with the key that it shows (RFC 8446, 4.4.3).

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerMisbehaved, RootCertStore,
    SignatureScheme,
};
use tracing::warn;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::KeyFingerprint;
use webpki_roots::TLS_SERVER_ROOTS;

/// Domains that no public certificate authority signs for (RFC 6761, 6762, 8375).
const LOCAL_DOMAINS: [&str; 5] = ["localhost", "local", "internal", "lan", "home.arpa"];

/// The rule by which a relay is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayTrust {
    /// Its key has this fingerprint; nothing else counts.
    Pinned(KeyFingerprint),
    /// A public certificate authority vouches for its name.
    PublicCa,
    /// Whoever answers first is believed, with a warning, and must show the same key from then on
    /// as long as this process lives.
    FirstUse,
}

impl RelayTrust {
    /// The rule for a relay at `host` when the user names none: a public CA where there can be one.
    pub fn by_default(host: &str) -> Self {
        if is_local(host) {
            Self::FirstUse
        } else {
            Self::PublicCa
        }
    }

    /// The verifier of this rule.
    pub(crate) fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, rustls::server::VerifierBuilderError> {
        let known = match self {
            Self::PublicCa => {
                let roots = RootCertStore {
                    roots: TLS_SERVER_ROOTS.to_vec(),
                };
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
                return Ok(builder.build()?);
            }
            Self::Pinned(fingerprint) => OnceLock::from(*fingerprint),
            Self::FirstUse => OnceLock::new(),
        };
        Ok(Arc::new(OneKey { known, provider }))
    }
}

fn is_local(host: &str) -> bool {
    let Ok(name) = host.parse::<Hostname>() else {
        return host.parse::<IpAddr>().is_ok();
    };
    let above = |domain: &&str| {
        name.as_str()
            .strip_suffix(*domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    name.split_first().is_none() || LOCAL_DOMAINS.iter().any(above)
}

/// A relay showed another key than it should.
#[derive(Debug, thiserror::Error)]
#[error(
    "the relay's key is {shown}, but {expected} is expected. Either somebody stands between, or the \
     relay has a new key: ask its operator, then give --server-fingerprint {shown}"
)]
struct WrongKey {
    shown: KeyFingerprint,
    expected: KeyFingerprint,
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Result<KeyFingerprint, Error> {
    KeyFingerprint::of_certificate(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn expect(shown: KeyFingerprint, expected: KeyFingerprint) -> Result<(), Error> {
    if shown == expected {
        return Ok(());
    }
    // Not CertificateError::Other, whose Display hides the text.
    Err(Error::Other(OtherError(Arc::new(WrongKey {
        shown,
        expected,
    }))))
}

/// Accepts one key, whatever its certificate says: a given one, or the first that is seen.
#[derive(Debug)]
struct OneKey {
    known: OnceLock<KeyFingerprint>,
    provider: Arc<CryptoProvider>,
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
        expect(shown, known).map(|()| ServerCertVerified::assertion())
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
        let expected = self.known.get_or_init(|| {
            warn!(
                "the relay's key is believed on first sight: {shown}. Compare it with what the \
                 relay printed at its start, or give --server-fingerprint {shown}"
            );
            shown
        });
        // Two handshakes may have begun while no key was known: only one key becomes the known one.
        expect(shown, *expected)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_needs_a_public_ca_and_others_are_believed_on_first_sight() {
        for host in [
            "relay.example.com",
            "localhost.example.com",
            "notlocal",
            "my-local.com",
        ] {
            let public = host.contains('.');
            assert_eq!(
                RelayTrust::by_default(host) == RelayTrust::PublicCa,
                public,
                "{host}"
            );
        }
        for host in [
            "127.0.0.1",
            "::1",
            "relay",
            "relay.local",
            "a.b.home.arpa",
            "x.localhost",
        ] {
            assert_eq!(RelayTrust::by_default(host), RelayTrust::FirstUse, "{host}");
        }
    }
}
