//! How a host name stands with its certificate, for whoever shows it.

use std::time::SystemTime;

use super::renewal::Validity;

/// How a host name stands with its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CertificateState {
    /// Nobody vouches for it, and no order is under way here: the certificate is signed by its own key.
    #[default]
    SelfSigned,
    /// The user has brought it.
    Brought,
    /// The first one is being ordered. Until it is there the certificate is self-signed.
    Ordering,
    /// The first one has to wait. Until it is there the certificate is self-signed.
    Waiting {
        /// Until when.
        until: SystemTime,
        /// Why, for people.
        why: String,
    },
    /// An authority vouches for it.
    Certified {
        /// Its dates.
        validity: Validity,
        /// About when it will be renewed.
        renewal: SystemTime,
        /// Why it has not been renewed yet, if it should have been.
        overdue: Option<String>,
    },
}
