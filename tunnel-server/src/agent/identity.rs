//! Who an agent is: the key that it proved in the handshake, and nothing else.
//!
//! There is no path building and no look at dates: the certificate is only the envelope of the key.
//! What must hold is that the peer signed *this* handshake with it (RFC 8446, 4.4.3).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};
use tunnel_common::identity::{self, ClientId};
use tunnel_common::proof::{MAX_CERTIFICATE_BYTES, SCHEMES};
use tunnel_common::tls::CLAIM_OID;
use x509_parser::oid_registry::Oid;

/// A key that an agent has proved, and what its certificate claims besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The fingerprint of the key.
    pub(crate) id: ClientId,
    /// The key, as a SubjectPublicKeyInfo in DER.
    pub(crate) public_key: Vec<u8>,
    /// The private extension, if the certificate has one.
    pub(crate) extension: Option<Vec<u8>>,
}

impl Identity {
    /// What is in `certificate`, whose key has been proved. `None` if it can not be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let public_key = identity::public_key(certificate).ok()?;
        Some(Self {
            id: ClientId::of_spki(&public_key),
            public_key,
            extension: claim(certificate),
        })
    }
}

/// The private extension. One that is there twice, or in a certificate that the second parser does
/// not understand, claims nothing.
fn claim(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let oid = Oid::from(CLAIM_OID).ok()?;
    let extension = parsed.get_extension_unique(&oid).ok()??;
    Some(extension.value.to_vec())
}

/// Why a certificate can not be an agent's.
#[derive(Debug, thiserror::Error)]
enum Unacceptable {
    #[error("an agent shows one certificate, not a chain")]
    Chain,
    #[error("the certificate has more than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLong,
}

/// Accepts every key, once it is proved.
#[derive(Debug)]
pub(crate) struct AnyProvenKey(pub(crate) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyProvenKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let reject = |why| Error::from(CertificateError::Other(OtherError(Arc::new(why))));
        if !intermediates.is_empty() {
            return Err(reject(Unacceptable::Chain));
        }
        if end_entity.len() > MAX_CERTIFICATE_BYTES {
            return Err(reject(Unacceptable::TooLong));
        }
        ClientId::of_certificate(end_entity)
            .map_err(|_| Error::from(CertificateError::BadEncoding))?;
        Ok(ClientCertVerified::assertion())
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
        if !SCHEMES.contains(&signature.scheme) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// The identity that the peer of a completed QUIC handshake proved.
pub(super) fn proven_over_quic(connection: &quinn::Connection) -> Option<Identity> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    Identity::of(chain.first()?)
}

#[cfg(test)]
mod tests {
    use tunnel_common::tls;

    use super::*;

    fn verify(chain: &[CertificateDer<'_>]) -> Result<ClientCertVerified, Error> {
        let verifier = AnyProvenKey(tls::provider());
        verifier.verify_client_cert(
            &chain[0],
            &chain[1..],
            UnixTime::since_unix_epoch(std::time::Duration::ZERO),
        )
    }

    fn certificate() -> CertificateDer<'static> {
        let key = tls::generate_key().expect("a key");
        tls::self_signed(&key, &[]).expect("signs").cert[0].clone()
    }

    #[test]
    fn the_claim_of_a_certificate_is_read_as_it_is_and_none_is_none() {
        let key = tls::generate_key().expect("a key");
        let of = |claim: Option<&[u8]>| {
            let certified = tls::self_signed_with_claim(&key, claim).expect("signs");
            Identity::of(&certified.cert[0]).expect("a certificate")
        };
        assert_eq!(of(None).extension, None);
        for claim in [&b""[..], b"x", &[4, 1, 7], &[0xff; 4096]] {
            assert_eq!(of(Some(claim)).extension.as_deref(), Some(claim));
        }
        assert_eq!(
            of(None).id,
            of(Some(b"x")).id,
            "the claim is not the identity"
        );
    }

    #[test]
    fn one_self_signed_certificate_will_do_at_any_date() {
        assert!(verify(&[certificate()]).is_ok());
    }

    #[test]
    fn a_chain_a_giant_and_rubbish_are_refused() {
        assert!(verify(&[certificate(), certificate()]).is_err());
        assert!(verify(&[CertificateDer::from(vec![0x30; MAX_CERTIFICATE_BYTES + 1])]).is_err());
        assert!(verify(&[CertificateDer::from(b"rubbish".to_vec())]).is_err());
    }
}
