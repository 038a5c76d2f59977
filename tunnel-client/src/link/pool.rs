//! The tunnels of one epoch, which serve together: one over QUIC, several over HTTP/2.
//!
//! ```text
//!   a tunnel that serves ──▶ slot 0 ─┐
//!                            slot 1 ─┤ each: dial ─▶ serve ─▶ lost ─▶ wait ─▶ dial …
//!                            slot 2 ─┤
//!                            slot 3 ─┴─▶ over, when none of them serves
//! ```
//!
//! A pool is never mended from nothing: when its last tunnel is lost, all ways are open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::backoff::Backoff;
use super::draining::Draining;
use super::lost::Lost;
use super::policy::Way;
use super::pulse::Pulses;
use super::shared::{Link, Place};
use super::tunnel::{Reins, Tunnel};

/// A tunnel that served for less is no sign that all is well: the waits go on growing.
pub(super) const SERVED_LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The wait after the relay has refused one more tunnel, while others serve.
const REFUSED_WAIT: Duration = Duration::from_secs(60);

/// The tunnels of one epoch.
#[derive(Debug)]
pub(super) struct Pool {
    link: Arc<Link>,
    way: Way,
    epoch: u64,
    serving: AtomicUsize,
    pulses: Pulses,
    draining: Draining,
    /// Fires when every tunnel should say goodbye and go.
    shutdown: CancellationToken,
    /// Fires when no tunnel that is lost should be replaced any more.
    retired: CancellationToken,
}

/// The pool that serves, as its keeper sees it.
#[derive(Debug)]
pub(super) struct Current {
    /// How the relay is reached.
    pub(super) way: Way,
    /// Since when it serves.
    pub(super) begun: Instant,
    /// Of its tunnels.
    pub(super) pulses: Pulses,
    /// Whether its relay is about to stop.
    pub(super) draining: Draining,
    /// Lets no tunnel of it be replaced any more.
    pub(super) retire: CancellationToken,
    /// Cuts it off.
    pub(super) running: AbortHandle,
}

impl Pool {
    /// A pool that begins to serve: with [`keep`](Self::keep).
    pub(super) fn new(link: Arc<Link>, way: Way, epoch: u64, shutdown: CancellationToken) -> Self {
        Self {
            link,
            way,
            epoch,
            serving: AtomicUsize::new(0),
            pulses: Pulses::default(),
            draining: Draining::default(),
            retired: shutdown.child_token(),
            shutdown,
        }
    }

    /// Lets no tunnel that is lost be replaced any more. So does a shutdown.
    pub(super) fn retire(&self) -> CancellationToken {
        self.retired.clone()
    }

    /// Of its tunnels.
    pub(super) fn pulses(&self) -> Pulses {
        self.pulses.clone()
    }

    /// Whether the relay is about to stop.
    pub(super) fn draining(&self) -> Draining {
        self.draining.clone()
    }

    /// Serves until none of the tunnels does, and says why the last was lost; `None` when they were
    /// retired, and have ended. Dropping the future cuts off all of them.
    pub(super) async fn keep(self, first: Tunnel) -> Option<Lost> {
        let slots = self.link.policy.pool_size(self.way);
        let mut first = Some(first);
        let mut keeping: FuturesUnordered<_> = (0..slots)
            .map(|slot| {
                let place = Place {
                    epoch: self.epoch,
                    slot,
                    slots,
                };
                self.keep_slot(place, first.take())
            })
            .collect();
        while let Some(ended) = keeping.next().await {
            if let Some(lost) = ended {
                return Some(lost);
            }
        }
        None
    }

    /// Keeps one of the tunnels. Gives why it was lost if that ends the pool.
    async fn keep_slot(&self, place: Place, mut tunnel: Option<Tunnel>) -> Option<Lost> {
        let mut backoff = Backoff::new(self.link.venue.timeouts.redial, Instant::now());
        loop {
            let mut since = Instant::now();
            let lost = match tunnel.take() {
                Some(tunnel) => {
                    let lost = self.serve(place.slot, tunnel, &mut backoff).await?;
                    since = Instant::now();
                    lost
                }
                None => match self.dial(place).await? {
                    Ok(dialled) => {
                        tunnel = Some(dialled);
                        continue;
                    }
                    Err(lost) => lost,
                },
            };
            if self.serving.load(Ordering::Acquire) == 0 {
                return Some(lost);
            }
            let wait = match lost.refusal_for_good() {
                // The others hear it too, if it is meant for them.
                Some(_) => REFUSED_WAIT,
                None => lost.wait(&mut backoff, since),
            };
            let Place { slot, slots, .. } = place;
            debug!("tunnel {slot} of {slots} is dialled again in {wait:.1?}, others serve: {lost}");
            self.unless_retired(sleep(wait)).await?;
        }
    }

    /// Serves until the tunnel is lost; `None` if that was wanted.
    async fn serve(&self, slot: u16, tunnel: Tunnel, backoff: &mut Backoff) -> Option<Lost> {
        let begun = Instant::now();
        self.pulses.begin(slot, tunnel.pulse());
        self.serving.fetch_add(1, Ordering::AcqRel);
        let reins = Reins {
            shutdown: &self.shutdown,
            retired: &self.retired,
            draining: &self.draining,
        };
        let served = tunnel.serve(&self.link, reins);
        let served = served.await;
        self.serving.fetch_sub(1, Ordering::AcqRel);
        self.pulses.end(slot);
        if begun.elapsed() >= SERVED_LONG_ENOUGH {
            backoff.served(Instant::now());
        }
        match served {
            Err(error) if self.retired.is_cancelled() => {
                debug!("a tunnel ends that was retired: {error}");
                None
            }
            served => served.err().map(Lost::from),
        }
    }

    /// Dials for a place. `None` when the pool was retired meanwhile.
    async fn dial(&self, place: Place) -> Option<Result<Tunnel, Lost>> {
        let dialling = async {
            let hello = self.link.hello(place);
            let ready = self.link.dialler.reach(&[self.way], &hello).await?;
            Ok(Tunnel::ask(ready, &self.link).await?)
        };
        self.unless_retired(Box::pin(dialling)).await
    }

    async fn unless_retired<F: Future>(&self, future: F) -> Option<F::Output> {
        self.retired.run_until_cancelled(future).await
    }
}
