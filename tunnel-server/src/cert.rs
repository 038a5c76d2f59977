//! The relay's own certificate: what agents see in the handshake.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::sign::CertifiedKey;
use tunnel_common::tls::{self, CertificateError};

/// A certificate that the relay signs itself, for these names.
pub fn self_signed(key: &KeyPair, names: &[String]) -> Result<Arc<CertifiedKey>, CertificateError> {
    tls::self_signed(key, names).map(Arc::new)
}
