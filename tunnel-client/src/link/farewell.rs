//! How a tunnel comes to its end without cutting a visit.
//!
//! ```text
//!   serving ── asked to end ──▶ Leaving ── the relay has heard ──▶ visits end between two requests
//!                                                                    │ busy ones go on
//!                   closed by the relay, or by us after drain_grace ◀──┘
//! ```
//!
//! What the relay sends before it has heard is served like any other visit. When a visit is over here, its
//! last bytes may still be on their way: the relay knows when its visitor has them, and closes then.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::config::Timeouts;

/// The end of one tunnel, as its control stream and its visits see it.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// Fires when visits should end as soon as nobody waits for anything.
    pub(super) parting: CancellationToken,
    /// Fires when the relay knows that we leave.
    pub(super) heard: CancellationToken,
    /// Counts the visits.
    pub(super) visits: TaskTracker,
}

impl Farewell {
    /// From when it is said that we leave until nothing is left to wait for: the relay has let us go
    /// (`closed`), since all visitors have what we sent them, or [`Timeouts::drain_grace`] is over.
    pub(super) async fn part<C>(&self, timeouts: &Timeouts, closed: impl Future<Output = C>) {
        let hearing = timeout(timeouts.goodbye, self.heard.cancelled());
        let has_heard = hearing.await.is_ok();
        if !has_heard {
            warn!("the relay did not hear that we leave");
        }
        self.parting.cancel();
        let ends = async {
            self.gone(timeouts.splice.arrival).await;
            if has_heard {
                closed.await;
            }
        };
        if timeout(timeouts.drain_grace, ends).await.is_err() {
            let visits = self.visits.len();
            warn!(
                visits,
                "the grace is over; what visitors have not got by now is cut"
            );
        }
    }

    /// Ready when there was no visit for so long: the last may still be on its way, either way.
    async fn gone(&self, arrival: Duration) {
        self.visits.close();
        loop {
            self.visits.wait().await;
            sleep(arrival).await;
            if self.visits.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_relay_lets_go_behind_the_last_visit_or_with_the_grace() {
        let (timeouts, began) = (Timeouts::default(), Instant::now());
        let farewell = Farewell::default();
        farewell.heard.cancel();
        farewell.part(&timeouts, ready(())).await;
        assert_eq!(began.elapsed(), timeouts.splice.arrival);

        let visit = farewell.visits.token();
        let visiting = async {
            let _ = timeout(Duration::from_secs(9), pending::<()>()).await;
            drop(visit);
        };
        let began = Instant::now();
        tokio::join!(visiting, farewell.part(&timeouts, ready(())));
        assert!(began.elapsed() >= Duration::from_secs(9));
        assert!(began.elapsed() < Duration::from_secs(10));

        let began = Instant::now();
        farewell.part(&timeouts, pending::<()>()).await;
        assert_eq!(began.elapsed(), timeouts.drain_grace);

        let _endless = farewell.visits.token();
        let began = Instant::now();
        farewell.part(&timeouts, ready(())).await;
        assert_eq!(began.elapsed(), timeouts.drain_grace);
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_hear_holds_nothing_up_for_long() {
        let (timeouts, began) = (Timeouts::default(), Instant::now());
        let farewell = Farewell::default();
        farewell.part(&timeouts, pending::<()>()).await;
        assert!(farewell.parting.is_cancelled());
        assert!(began.elapsed() <= timeouts.goodbye + timeouts.splice.arrival);
    }
}
