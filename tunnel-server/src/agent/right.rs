//! The right of one key to get visits over one tunnel.

use tokio_util::sync::CancellationToken;
use tunnel_common::identity::ClientId;

/// Given when the key is admitted on the tunnel, held by every visit that comes by it, and revoked
/// once and for all.
#[derive(Debug)]
pub(crate) struct Right {
    agent: ClientId,
    revoked: CancellationToken,
}

impl Right {
    /// The right of the key `agent`.
    pub(crate) fn new(agent: ClientId) -> Self {
        let revoked = CancellationToken::new();
        Self { agent, revoked }
    }

    /// Whose it is.
    pub(crate) fn agent(&self) -> ClientId {
        self.agent
    }

    /// Takes the right away: every visit that holds it ends.
    pub(crate) fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Whether it was taken away.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Ready when it is taken away. Cancel safe.
    pub(crate) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}
