//! Keeps the link: dial, serve, back off, for ever; and a better connection in place of a worse one.
//!
//! ```text
//!        ┌────────────── wait ◀────────────────┐
//!        ▼                                     │
//!     dialling ── asked, granted ──▶ serving ──┤ no tunnel serves
//!        │ │                         │   ▲     │
//!        │ └── failed ───────────────┼───┼─────┘
//!        │                           └───┘ a better one is granted: the old is retired
//!        └──── refused for good ──▶ end
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use tunnel_common::wire::frame::Refused;

use super::backoff::Backoff;
use super::dial::Ready;
use super::lost::Lost;
use super::policy::{Probing, Way};
use super::pool::{Current, Pool, SERVED_LONG_ENOUGH};
use super::seek::{reach, seek};
use super::shared::Link;
use super::tunnel::Tunnel;

/// Keeps one link.
#[derive(Debug)]
pub(crate) struct Keeper {
    link: Arc<Link>,
    shutdown: CancellationToken,
    backoff: Backoff,
    probing: Probing,
    /// The newest that was taken.
    epoch: u64,
    /// Those that serve, and those that are retired and still have visits.
    pools: JoinSet<Ended>,
}

/// A pool has ended.
#[derive(Debug)]
struct Ended {
    epoch: u64,
    why: Option<Lost>,
}

/// What becomes of a pool that serves.
enum Next {
    /// Something better is ready.
    Better(Box<Ready>),
    /// None of its tunnels serves any more; without a reason it was asked to end.
    Over(Option<Lost>),
}

impl Keeper {
    /// Keeps `link` until `shutdown` fires.
    pub(crate) fn new(link: Arc<Link>, shutdown: CancellationToken) -> Self {
        Self {
            backoff: Backoff::new(Instant::now()),
            probing: Probing::new(link.venue.timeouts.quic_probe),
            link,
            shutdown,
            epoch: 0,
            pools: JoinSet::new(),
        }
    }

    /// Serves until it is shut down. An outage never ends it; a refusal that stands does. Dropping the
    /// future cuts off every tunnel.
    pub(crate) async fn keep(mut self) -> Result<(), Refused> {
        while let Some(lost) = self.attend().await {
            self.link.is_cut_off();
            if let Some(refused) = lost.refusal_for_good() {
                return Err(refused.clone());
            }
            let wait = lost.wait(&mut self.backoff);
            // The reason comes last: it may end with a command to be pasted.
            warn!(
                "trying {} again in {wait:.1?}: {lost}",
                self.link.dialler.relay()
            );
            let shutdown = self.shutdown.clone();
            if shutdown.run_until_cancelled(sleep(wait)).await.is_none() {
                break;
            }
        }
        // They say goodbye.
        while self.pools.join_next().await.is_some() {}
        Ok(())
    }

    /// One time of service, from the first dial until no tunnel serves. `None` when shut down.
    async fn attend(&mut self) -> Option<Lost> {
        info!(relay = %self.link.dialler.relay(), "connecting");
        let shutdown = self.shutdown.clone();
        let connecting = shutdown.run_until_cancelled(Box::pin(self.connect()));
        let mut current = match connecting.await? {
            Ok(tunnel) => self.begin(tunnel),
            Err(lost) => return Some(lost),
        };
        loop {
            let better = match self.next(&current).await {
                Next::Better(ready) => *ready,
                Next::Over(why) => {
                    self.has_ended(&current, why.as_ref());
                    return why;
                }
            };
            current = match self.take_over(current, better).await {
                Ok(new) => new,
                Err(why) => return why,
            };
        }
    }

    async fn connect(&mut self) -> Result<Tunnel, Lost> {
        let ways = self.link.policy.ways(&self.probing);
        let ready = reach(&self.link, &ways, &mut self.epoch).await?;
        let way = ready.way;
        let asked = Tunnel::ask(ready, &self.link).await;
        asked.map_err(|error| self.has_failed(way, error.into()))
    }

    /// Lets a tunnel serve, and those that belong to it.
    fn begin(&mut self, tunnel: Tunnel) -> Current {
        let (epoch, way, pulse) = (self.epoch, tunnel.way(), tunnel.pulse());
        let (pool, retire) = Pool::new(self.link.clone(), way, epoch, self.shutdown.clone());
        self.pools.spawn(async move {
            let why = pool.keep(tunnel).await;
            Ended { epoch, why }
        });
        Current {
            epoch,
            way,
            begun: Instant::now(),
            pulse,
            retire,
        }
    }

    /// Waits for what becomes of `current`.
    async fn next(&mut self, current: &Current) -> Next {
        let Self {
            link,
            probing,
            epoch,
            pools,
            ..
        } = self;
        tokio::select! {
            why = over(pools, current) => Next::Over(why),
            ready = seek(link, current, probing, epoch) => Next::Better(Box::new(ready)),
        }
    }

    /// Puts `better` in the place of `old`, whose visits go on. If that fails, nobody knows whether
    /// the relay has done so: all ways are open again, and `old` serves until one of them does.
    async fn take_over(&mut self, old: Current, better: Ready) -> Result<Current, Option<Lost>> {
        let (link, way) = (self.link.clone(), better.way);
        let mut asking = Box::pin(Tunnel::ask(better, &link));
        let mut is_over = false;
        loop {
            tokio::select! {
                asked = &mut asking => {
                    old.retire.cancel();
                    self.has_ended(&old, None);
                    return match asked {
                        Ok(tunnel) => Ok(self.begin(tunnel)),
                        Err(error) => Err(Some(self.has_failed(way, error.into()))),
                    };
                }
                // The relay may have closed the old before we hear that it has taken the new.
                why = over(&mut self.pools, &old), if !is_over => match why {
                    Some(why) => {
                        debug!("the old tunnel ends already: {why}");
                        is_over = true;
                    }
                    None => return Err(None),
                },
            }
        }
    }

    /// `current` serves no more, for this reason unless we wanted it so.
    fn has_ended(&mut self, current: &Current, why: Option<&Lost>) {
        let served = current.begun.elapsed();
        if served >= SERVED_LONG_ENOUGH {
            self.backoff.served(Instant::now());
        }
        let is_silence = why.is_some_and(Lost::is_silence);
        self.probing.ended(current.way, served, is_silence);
    }

    /// A tunnel was ready, and then did not serve.
    fn has_failed(&mut self, way: Way, lost: Lost) -> Lost {
        self.probing.ended(way, Duration::ZERO, lost.is_silence());
        lost
    }
}

/// Ready when no tunnel of `current` serves any more; without a reason if it was asked to end. What was
/// retired before ends meanwhile. Cancel safe.
async fn over(pools: &mut JoinSet<Ended>, current: &Current) -> Option<Lost> {
    loop {
        match pools.join_next().await {
            Some(Ok(ended)) if ended.epoch == current.epoch => return ended.why,
            Some(Ok(ended)) => debug!(epoch = ended.epoch, "what was retired has ended"),
            // It does not say which it was: better one too many than one too few.
            Some(Err(_)) | None => return Some(Lost::Fault),
        }
    }
}
