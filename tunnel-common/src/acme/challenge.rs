//! What an authority is shown that asks at our name: the answer of TLS-ALPN-01 (RFC 8737, 3).

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, DistinguishedName};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::clock::Clock;
use crate::hostname::Hostname;
use crate::tls::{self, CertificateError};
use crate::wire::alpn;

/// The answer to the question of an authority, or of our own self-test.
#[derive(Clone)]
pub struct Answer {
    certificate: CertificateDer<'static>,
    config: Arc<ServerConfig>,
}

impl Answer {
    /// The answer for `host` whose key authorization has this SHA-256 digest. Its key is new, and good for
    /// nothing else.
    pub fn new(
        host: &Hostname,
        digest: &[u8; 32],
        clock: &Clock,
    ) -> Result<Self, CertificateError> {
        Self::with(
            host,
            vec![CustomExtension::new_acme_identifier(digest)],
            clock,
        )
    }

    /// What we show to ourselves, to see whether an answer for `host` would be seen from outside. No authority
    /// would be content with it.
    pub fn trial(host: &Hostname, clock: &Clock) -> Result<Self, CertificateError> {
        Self::with(host, vec![], clock)
    }

    fn with(
        host: &Hostname,
        extensions: Vec<CustomExtension>,
        clock: &Clock,
    ) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::new([host.to_string()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions = extensions;
        let key = tls::generate_key()?;
        let certificate = params.self_signed(&key)?.der().clone();
        let provider = tls::provider();
        let signer = provider
            .key_provider
            .load_private_key(tls::private_key(&key))?;
        // Not checked as others are: webpki does not know the critical extension.
        let certified = CertifiedKey::new(vec![certificate.clone()], signer);
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![alpn::ACME_TLS.to_vec()];
        Ok(Self {
            certificate,
            config: Arc::new(config),
        })
    }

    /// The TLS by which it is given; there is nothing to say behind the handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The certificate that is shown.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_one_name_and_has_the_digest_in_a_critical_extension() {
        let host: Hostname = "x.example.com".parse().expect("a name");
        let answer = Answer::new(&host, &[7; 32], &Clock::system()).expect("makes");
        let (_, parsed) = x509_parser::parse_x509_certificate(answer.certificate()).expect("DER");
        let names = parsed
            .subject_alternative_name()
            .expect("one")
            .expect("is there");
        assert_eq!(names.value.general_names.len(), 1);
        let identifier = parsed
            .extensions()
            .iter()
            .find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.31")
            .expect("acmeIdentifier");
        assert!(identifier.critical);
        // An OCTET STRING of 32 bytes (RFC 8737, 3).
        assert_eq!(identifier.value[..2], [4, 32]);
        assert_eq!(identifier.value[2..], [7; 32]);
    }
}
