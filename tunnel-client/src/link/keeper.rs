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

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info, warn};
use tunnel_common::wire::frame::Refused;

use super::backoff::Backoff;
use super::control::ControlFailure;
use super::dial::Ready;
use super::draining::Draining;
use super::lost::Lost;
use super::policy::{End, Probing, Way};
use super::pool::{Current, Pool, SERVED_LONG_ENOUGH};
use super::seek::{pause, reach, seek};
use super::shared::Link;
use super::tunnel::{Tunnel, TunnelError};
use crate::host::events::Host;

/// Pools that go on beside the one that serves, to the end of their visits. A relay that leads us from
/// one to the next makes us keep no more.
const MAX_RETIRED: usize = 3;

/// When nothing serves any more, what is to take over has no more than this time to do so.
const ASK_PATIENCE: Duration = Duration::from_secs(3);

/// Keeps one link.
#[derive(Debug)]
pub(crate) struct Keeper {
    link: Arc<Link>,
    shutdown: CancellationToken,
    host: Host,
    backoff: Backoff,
    /// When the attempt began, or the tunnel was lost, after which it waits.
    since: Instant,
    probing: Probing,
    /// Of the pool that is over, if it had served for long enough.
    draining: Option<Draining>,
    /// The newest that was taken.
    epoch: u64,
    /// Those that serve, and those that are retired and still have visits.
    pools: JoinSet<Option<Lost>>,
    /// The latter, the oldest first.
    retired: VecDeque<AbortHandle>,
}

/// What becomes of a pool that serves.
enum Next {
    /// Something better is ready.
    Better(Box<Ready>),
    /// None of its tunnels serves any more; without a reason it was asked to end.
    Over(Option<Lost>),
}

impl Keeper {
    /// Keeps `link` until `shutdown` fires. What happens to this host is read from `host`.
    pub(crate) fn new(link: Arc<Link>, host: Host, shutdown: CancellationToken) -> Self {
        let (now, timeouts) = (Instant::now(), &link.venue.timeouts);
        Self {
            backoff: Backoff::new(timeouts.redial, now),
            probing: Probing::new(timeouts.quic_probe),
            host,
            since: now,
            draining: None,
            link,
            shutdown,
            epoch: 0,
            pools: JoinSet::new(),
            retired: VecDeque::new(),
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
            let shutdown = self.shutdown.clone();
            tokio::select! {
                () = self.wait(&lost) => {}
                () = shutdown.cancelled() => break,
            }
        }
        // They say goodbye.
        while self.pools.join_next().await.is_some() {}
        Ok(())
    }

    /// Waits before the next attempt.
    async fn wait(&mut self, lost: &Lost) {
        // All its agents would come back at once, unless each waited for a time of its own.
        let spread = self.draining.take().filter(|_| lost.is_draining());
        let spread = spread.and_then(|told| told.wait(Instant::now(), fastrand::f64()));
        let wait = spread.unwrap_or_else(|| lost.wait(&mut self.backoff, self.since));
        let relay = self.link.dialler.relay();
        // The reason comes last: it may end with a command to be pasted.
        match wait.is_zero() {
            true => warn!("trying {relay} again at once: {lost}"),
            false => warn!("trying {relay} again in {wait:.1?}: {lost}"),
        }
        let until = Instant::now() + wait;
        let Self {
            link,
            backoff,
            host,
            ..
        } = self;
        pause(link, lost, until, backoff, host).await;
    }

    /// One time of service, from the first dial until no tunnel serves. `None` when shut down.
    async fn attend(&mut self) -> Option<Lost> {
        info!(relay = %self.link.dialler.relay(), "connecting");
        self.since = Instant::now();
        let shutdown = self.shutdown.clone();
        let connecting = shutdown.run_until_cancelled(Box::pin(self.connect()));
        let mut current = match connecting.await? {
            Ok(tunnel) => self.begin(tunnel),
            Err(lost) => return Some(lost),
        };
        let why = loop {
            let better = match self.next(&current).await {
                Next::Better(ready) => *ready,
                Next::Over(why) => {
                    self.has_ended(&current, why.as_ref());
                    break why;
                }
            };
            current = match self.take_over(current, better).await {
                Ok(new) => new,
                Err(why) => break why,
            };
        };
        self.since = Instant::now();
        why
    }

    async fn connect(&mut self) -> Result<Tunnel, Lost> {
        let ways = self.link.policy.ways(&self.probing);
        let ready = reach(&self.link, &ways, &mut self.epoch, &mut self.host).await?;
        let way = ready.way;
        let asked = Tunnel::ask(ready, &self.link).await;
        asked.map_err(|error| self.has_failed(way, error.into()))
    }

    /// Lets a tunnel serve, and those that belong to it.
    fn begin(&mut self, tunnel: Tunnel) -> Current {
        let (epoch, way) = (self.epoch, tunnel.way());
        let pool = Pool::new(self.link.clone(), way, epoch, self.shutdown.clone());
        let (retire, pulses, draining) = (pool.retire(), pool.pulses(), pool.draining());
        let running = self.pools.spawn(pool.keep(tunnel).in_current_span());
        Current {
            way,
            begun: Instant::now(),
            pulses,
            draining,
            retire,
            running,
        }
    }

    /// Lets what served go on to the end of its visits, and no longer than it takes so many others to
    /// be retired.
    fn retire(&mut self, old: Current) {
        if old.begun.elapsed() >= SERVED_LONG_ENOUGH {
            self.backoff.served(Instant::now());
        }
        old.retire.cancel();
        self.retired.push_back(old.running);
        self.retired.retain(|running| !running.is_finished());
        if self.retired.len() > MAX_RETIRED
            && let Some(oldest) = self.retired.pop_front()
        {
            oldest.abort();
        }
    }

    /// Waits for what becomes of `current`.
    async fn next(&mut self, current: &Current) -> Next {
        let Self {
            link,
            probing,
            epoch,
            pools,
            host,
            shutdown,
            backoff,
            ..
        } = self;
        let seeking = Box::pin(seek(link, current, probing, epoch, host, backoff));
        tokio::select! {
            why = over(pools, current) => Next::Over(why),
            Some(ready) = shutdown.run_until_cancelled(seeking) => Next::Better(Box::new(ready)),
        }
    }

    /// Puts `better` in the place of `old`, whose visits go on. If the relay refuses, `old` goes on as
    /// before. If nobody knows whether it has agreed, all ways are open again, and `old` serves until one
    /// of them does.
    async fn take_over(&mut self, old: Current, better: Ready) -> Result<Current, Option<Lost>> {
        let (link, shutdown, way) = (self.link.clone(), self.shutdown.clone(), better.way);
        let mut asking = Box::pin(Tunnel::ask(better, &link));
        let (mut is_over, mut patience) = (false, pin!(sleep(link.venue.timeouts.welcome)));
        loop {
            tokio::select! {
                asked = &mut asking => match asked {
                    Ok(tunnel) => {
                        self.retire(old);
                        return Ok(self.begin(tunnel));
                    }
                    Err(error) => {
                        let lost = self.has_failed(way, error.into());
                        if lost.is_refusal() && !is_over {
                            debug!("the relay takes no better tunnel: {lost}");
                            let now = Instant::now();
                            old.draining.looks(now + lost.wait(&mut self.backoff, now));
                            return Ok(old);
                        }
                        self.retire(old);
                        return Err(Some(lost));
                    }
                },
                // The relay may have closed the old before we hear that it has taken the new.
                why = over(&mut self.pools, &old), if !is_over => {
                    debug!("the old tunnel ends already: {why:?}");
                    is_over = true;
                    patience.as_mut().reset(Instant::now() + ASK_PATIENCE);
                }
                () = &mut patience, if is_over => {
                    // Nobody knows whether it is the way or the network.
                    let lost = Lost::from(TunnelError::from(ControlFailure::Timeout));
                    let end = self.end(&lost);
                    self.probing.ended(way, Duration::ZERO, end, Instant::now());
                    return Err(Some(lost));
                }
                () = shutdown.cancelled() => return Err(None),
            }
        }
    }

    /// `current` serves no more, for this reason unless we wanted it so.
    fn has_ended(&mut self, current: &Current, why: Option<&Lost>) {
        let served = current.begun.elapsed();
        // A relay that stops again and again is left alone ever longer, like any that is lost.
        self.draining = None;
        if served >= SERVED_LONG_ENOUGH {
            self.backoff.served(Instant::now());
            self.draining = Some(current.draining.clone());
        }
        let end = why.map_or(End::Said, |lost| self.end(lost));
        self.probing.ended(current.way, served, end, Instant::now());
    }

    /// A tunnel was ready, and then did not serve.
    fn has_failed(&mut self, way: Way, lost: Lost) -> Lost {
        let end = match self.end(&lost) {
            // The relay is there, and says no more than Welcome.
            End::Silence if lost.is_unanswered() => End::SilenceAlone,
            end => end,
        };
        self.probing.ended(way, Duration::ZERO, end, Instant::now());
        lost
    }

    fn end(&self, lost: &Lost) -> End {
        match lost.is_silence() {
            false => End::Said,
            true if self.host.has_just_woken() => End::Excused,
            true => End::Silence,
        }
    }
}

/// Ready when no tunnel of `current` serves any more; without a reason if it was asked to end. What was
/// retired before ends meanwhile. Cancel safe.
async fn over(pools: &mut JoinSet<Option<Lost>>, current: &Current) -> Option<Lost> {
    let current = current.running.id();
    loop {
        match pools.join_next_with_id().await {
            Some(Ok((id, why))) if id == current => return why,
            Some(Err(fault)) if fault.id() == current => return Some(Lost::Fault),
            Some(_) => debug!("what was retired has ended"),
            None => return Some(Lost::Fault),
        }
    }
}
