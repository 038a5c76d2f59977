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
use tunnel_common::identity::ClientId;

/// The longest certificate that is looked at: a P-256 one has 400 bytes, with a private extension
/// some more.
const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;

/// The signatures that an agent may prove its key with.
const SCHEMES: [SignatureScheme; 2] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
];

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

/// The identity that the peer of a completed handshake proved.
pub(crate) fn proven(connection: &quinn::Connection) -> Option<ClientId> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    ClientId::of_certificate(chain.first()?).ok()
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
