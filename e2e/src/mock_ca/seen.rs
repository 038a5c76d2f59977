//! What the authority saw.

use std::time::SystemTime;

/// An order that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenOrder {
    /// The hosts, in the client's order.
    pub hosts: Vec<String>,
    /// The profile that it named.
    pub profile: Option<String>,
    /// The certificate that it is to replace (RFC 9773, 5).
    pub replaces: Option<String>,
    /// When, by the authority's clock.
    pub at: SystemTime,
}

/// A CSR for which it issued a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCsr {
    /// The hosts, in the client's order.
    pub hosts: Vec<String>,
    /// Whether it has no subject beside them.
    pub subject_is_empty: bool,
    /// The key: a SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
}

/// A request, whatever it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    /// Method and path: `POST /new-order`.
    pub line: String,
    /// The status that it was answered with.
    pub status: u16,
    /// When, by the authority's clock.
    pub at: SystemTime,
}
