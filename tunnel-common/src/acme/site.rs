//! What is different between relay and agent: where a name is served, who may order, and how an authority's
//! question gets its answer.

use super::chain::Chain;
use super::challenge::Answer;
use super::failure::Failure;
use super::state::CertificateState;

/// Where a name is served, and certificates for it are shown.
pub trait Site: Send + Sync {
    /// Shows the answer until it is dropped.
    type Presented: Send;

    /// Ready when this process may order: nobody else does for the same name, and the authority's question
    /// could get here. Cancel safe.
    fn may_order(&self) -> impl Future<Output = ()> + Send;

    /// Shows `answer` to whoever asks by ACME's protocol. When it is ready, the answer is up.
    fn present(
        &self,
        answer: Answer,
    ) -> impl Future<Output = Result<Self::Presented, Failure>> + Send;

    /// Shows visitors this chain from now on.
    fn install(&self, chain: &Chain);

    /// Hears how it stands, now and at each change.
    fn tell(&self, state: CertificateState);
}
