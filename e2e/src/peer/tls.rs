//! The hand-made agent's TLS, which takes any relay.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tunnel_common::tls::{self, any_certificate::AnyCertificate};

/// TLS 1.3 with any certificate, or none, that offers this protocol.
pub(super) fn tls_config(identity: Option<CertifiedKey>, protocol: &[u8]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3");
    let builder = builder.with_root_certificates(RootCertStore::empty());
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(AnyCertificate::default()));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}
