//! A key that is admitted on a tunnel.

use std::sync::Arc;

use tunnel_common::hostname::Hostname;
use tunnel_common::wire::frame::EndpointRef;

use super::identity::Identity;
use super::registry::Membership;
use super::right::Right;

/// The key, the right that it has, and its place in the registry if it has one. Dropping it gives up the
/// place; visits that hold the right go on.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) identity: Identity,
    pub(super) right: Arc<Right>,
    /// The names for which it was admitted.
    pub(super) hosts: Vec<Hostname>,
    pub(super) membership: Option<Membership>,
}

impl Held {
    /// Whether a visit goes on by this right that nobody can come by any more.
    pub(super) fn has_visits(&self) -> bool {
        self.membership.is_none() && Arc::strong_count(&self.right) > 1
    }

    /// The endpoint that is served for it, if this process is the one that orders its certificates.
    pub(super) fn leads(&self) -> Option<EndpointRef> {
        self.membership.as_ref()?.leads()
    }
}
