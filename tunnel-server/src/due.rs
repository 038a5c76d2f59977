//! A time that may never come.

use tokio::time::{Instant, sleep_until};

/// Ready at this time, or never. Cancel safe.
pub(crate) async fn due(at: Option<Instant>) {
    match at {
        None => std::future::pending().await,
        Some(at) => sleep_until(at).await,
    }
}
