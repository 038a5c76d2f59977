//! Looking for a better pool while one serves: QUIC beside HTTP/2, and anything beside a pool that is in
//! doubt, or whose relay is about to stop.
//!
//! ```text
//!            nothing comes                  ┌─▶ a substitute is ready: it takes over
//! serving ─▶ this host slept, or moved ─▶ in doubt
//!    ▲       it lost the address            └─▶ the relay speaks ─┐
//!    └────────────────────────────────────────────────────────────┘
//! ```

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::dial::Ready;
use super::dial_error::DialError;
use super::lost::Lost;
use super::policy::{End, Probing, Way};
use super::pool::{Current, SERVED_LONG_ENOUGH};
use super::pulse::{Footing, Pulses};
use super::shared::{Link, Place};
use super::tunnel::TunnelError;
use crate::host::events::{Host, News};

/// How often a pulse is felt, in shares of the silence that matters.
const FEELS: u32 = 6;
/// A QUIC connection that is to take over from HTTP/2 answers so many questions first …
const PROOFS: u64 = 5;
/// … so far apart …
const PROOFS_APART: Duration = Duration::from_millis(250);
/// … within this time, well before a relay has enough of who wishes for nothing.
const PROOF_PATIENCE: Duration = Duration::from_secs(3);

/// Why a pool is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nothing has come for so long.
    Silent(Duration),
    /// This host has slept: the relay, or a NAT on the way, may have forgotten us.
    Woke,
    /// This host sends from another address than before.
    Moved,
    /// This host has lost the address of a connection that can not move.
    Gone,
}

/// A pool that may be dead.
#[derive(Debug)]
struct Doubt {
    why: Why,
    /// What had come by then.
    heard: Vec<(u16, u64)>,
}

/// Looks beside `current` until something better is ready, which may be never. Each attempt
/// takes a new epoch. What happens to this host is read from `host`. Dropping the future gives it up.
pub(super) async fn seek(
    link: &Link,
    current: &Current,
    probing: &mut Probing,
    epoch: &mut u64,
    host: &mut Host,
    backoff: &mut Backoff,
) -> Ready {
    let keep_alive = link.venue.timeouts.quic.keep_alive;
    let mut doubted = None;
    loop {
        let within = link.policy.silence(keep_alive, current.pulses.round_trip());
        let Some(doubt) = doubted.take() else {
            doubted = tokio::select! {
                heard = silent(&current.pulses, within) => {
                    Some(Doubt { why: Why::Silent(within), heard })
                }
                why = befalls(host, current) => act(why, current, probing),
                ready = probe(link, current, probing, epoch) => return ready,
                look_at = current.draining.told() => {
                    let at = not_too_often(look_at, current, backoff);
                    return elsewhere(link, current, at, probing, epoch, host.clone()).await;
                }
            };
            continue;
        };
        doubt.tell();
        let found = resolve(link, current, &doubt, within, probing, epoch, host).await;
        doubted = match found {
            Found::Other((ready, end)) if !has_spoken(&current.pulses, &doubt.heard) => {
                let served = current.begun.elapsed();
                probing.ended(current.way, served, end, Instant::now());
                return *ready;
            }
            Found::Other(_) | Found::Same => None,
            Found::Doubt(again) => Some(again.unwrap_or(doubt)),
        };
        if doubted.is_none() {
            debug!("the relay speaks again");
        }
    }
}

/// Looks for another pool until the one that is in doubt speaks again, or something else happens to this
/// host.
async fn resolve(
    link: &Link,
    current: &Current,
    doubt: &Doubt,
    feels: Duration,
    probing: &mut Probing,
    epoch: &mut u64,
    host: &mut Host,
) -> Found {
    let replacing = replace(link, current, doubt, *probing, epoch, host.clone());
    let mut replacing = pin!(replacing);
    loop {
        tokio::select! {
            found = &mut replacing => return Found::Other(found),
            () = speaks(&current.pulses, &doubt.heard, feels) => return Found::Same,
            why = befalls(host, current) => match act(why, current, probing) {
                // It is being replaced for that already.
                _ if why == Why::Gone && doubt.why == why => {}
                again => return Found::Doubt(again),
            },
        }
    }
}

/// What becomes of a doubt.
enum Found {
    /// Another pool is ready.
    Other((Box<Ready>, End)),
    /// The one that is there speaks again.
    Same,
    /// Something else has happened to this host.
    Doubt(Option<Doubt>),
}

/// When to look for another relay: not before a pool that has only just begun has proved that it is no
/// move from one relay that stops to the next.
fn not_too_often(look_at: Instant, current: &Current, backoff: &mut Backoff) -> Instant {
    let now = Instant::now();
    match current.begun.elapsed() < SERVED_LONG_ENOUGH {
        true => look_at.max(now + backoff.next(now, fastrand::f64())),
        false => look_at,
    }
}

/// Ready when something has happened to this host that concerns `current`. Cancel safe.
async fn befalls(host: &mut Host, current: &Current) -> Why {
    loop {
        let news = host.next().await;
        match (current.pulses.look(), news) {
            (Footing::Gone, _) => return Why::Gone,
            (Footing::Moved, _) => return Why::Moved,
            (Footing::Same, News::Woke) => return Why::Woke,
            // Another network of this host, or no way to the relay: then we hear when there is one.
            (Footing::Same, News::Network) => {}
        }
    }
}

/// Does at once what this calls for; whether `current` is in doubt then.
fn act(why: Why, current: &Current, probing: &mut Probing) -> Option<Doubt> {
    let (now, heard) = (Instant::now(), current.pulses.received());
    match why {
        Why::Silent(_) => {}
        Why::Woke => probing.hurry(now),
        Why::Moved | Why::Gone => probing.move_on(now),
    }
    current.pulses.rebind();
    // HTTP/2 that has its address stands as it stood.
    let is_in_doubt = why != Why::Moved || current.way == Way::Quic;
    is_in_doubt.then_some(Doubt { why, heard })
}

impl Doubt {
    fn tell(&self) {
        match self.why {
            Why::Silent(within) => {
                info!("nothing has come from the relay for {within:.1?}; trying other ways");
            }
            Why::Woke => debug!("is the relay still there?"),
            Why::Moved => info!("this host has another address; the tunnel moves"),
            Why::Gone => info!("this host has lost the tunnel's address; dialling anew"),
        }
    }

    /// How long to wait for a word from the relay before others are tried.
    fn patience(&self, link: &Link, current: &Current) -> Duration {
        match self.why {
            Why::Silent(_) | Why::Gone => Duration::ZERO,
            Why::Woke | Why::Moved => link.policy.patience(current.pulses.round_trip()),
        }
    }
}

/// Tries all ways until one is ready in the place of `current`, and how that ended then. A pool that is
/// in doubt by the way it goes comes last.
async fn replace(
    link: &Link,
    current: &Current,
    doubt: &Doubt,
    mut quic: Probing,
    epoch: &mut u64,
    host: Host,
) -> (Box<Ready>, End) {
    sleep(doubt.patience(link, current)).await;
    let is_silent = matches!(doubt.why, Why::Silent(_));
    if is_silent {
        let served = current.begun.elapsed();
        quic.ended(current.way, served, End::SilenceAlone, Instant::now());
    }
    let round_trip = current.pulses.round_trip();
    let (ready, took) = substitute(link, &quic, epoch, host).await;
    let end = match is_silent {
        true => End::replaced_by(ready.way, took, round_trip),
        false => End::Excused,
    };
    (Box::new(ready), end)
}

/// Tries what is better than `current` again and again.
async fn probe(link: &Link, current: &Current, probing: &mut Probing, epoch: &mut u64) -> Ready {
    let better = link.policy.better_than(current.way);
    if better.is_empty() {
        return std::future::pending().await;
    }
    loop {
        sleep_until(probing.due(Instant::now(), fastrand::f64())).await;
        probing.probed();
        // What happens to this host meanwhile is seen to by whoever lets this run.
        match attempt(link, better, epoch).await {
            Ok(mut ready) => {
                let heard = current.pulses.received();
                let proving = ready.control.prove(PROOFS, PROOFS_APART, PROOF_PATIENCE);
                match proving.await {
                    Ok(()) => return ready,
                    Err(error) => {
                        debug!("a better way, but not for long: {error}");
                        let lost = Lost::from(TunnelError::from(error));
                        let end = match has_spoken(&current.pulses, &heard) {
                            _ if !lost.is_silence() => End::Said,
                            true => End::SilenceAlone,
                            false => End::Silence,
                        };
                        probing.ended(ready.way, Duration::ZERO, end, Instant::now());
                    }
                }
            }
            Err(error) => debug!("no better way yet: {error}"),
        }
    }
}

/// Ready when nothing has come for so long: what had come by then.
async fn silent(pulses: &Pulses, within: Duration) -> Vec<(u16, u64)> {
    let (mut heard, mut since) = (pulses.received(), Instant::now());
    loop {
        sleep(within / FEELS).await;
        let now = pulses.received();
        if now != heard {
            (heard, since) = (now, Instant::now());
        } else if since.elapsed() >= within {
            return heard;
        }
    }
}

/// Ready when more has come than was `heard`.
async fn speaks(pulses: &Pulses, heard: &[(u16, u64)], within: Duration) {
    while !has_spoken(pulses, heard) {
        sleep(within / FEELS).await;
    }
}

/// Whether more has come. That a tunnel has gone is no sign of life.
fn has_spoken(pulses: &Pulses, heard: &[(u16, u64)]) -> bool {
    pulses.received().iter().any(|one| !heard.contains(one))
}

/// Looks for another relay behind the name of one that is about to stop, and takes none of us any more.
async fn elsewhere(
    link: &Link,
    current: &Current,
    at: Instant,
    quic: &Probing,
    epoch: &mut u64,
    host: Host,
) -> Ready {
    let wait = at.saturating_duration_since(Instant::now());
    info!("looking for another relay in {wait:.1?}");
    sleep_until(at).await;
    current.draining.looks(at);
    substitute(link, quic, epoch, host).await.0
}

/// Tries all ways until one is ready; how long that took if it was the first attempt.
async fn substitute(
    link: &Link,
    quic: &Probing,
    epoch: &mut u64,
    mut host: Host,
) -> (Ready, Option<Duration>) {
    let begun = Instant::now();
    let (mut backoff, mut since) = (Backoff::new(link.venue.timeouts.redial, begun), begun);
    loop {
        let lost = match reach(link, &link.policy.ways(quic), epoch, &mut host).await {
            Ok(ready) => return (ready, (since == begun).then(|| begun.elapsed())),
            Err(error) => Lost::from(error),
        };
        debug!("no other way: {lost}");
        let until = Instant::now() + lost.wait(&mut backoff, since);
        pause(link, &lost, until, &mut backoff, &mut host).await;
        since = Instant::now();
    }
}

/// Ready at that time after `lost`, or soon after this host has moved or woken up, unless somebody has asked us
/// to wait: an attempt may have better prospects then. Cancel safe.
pub(super) async fn pause(
    link: &Link,
    lost: &Lost,
    mut until: Instant,
    backoff: &mut Backoff,
    host: &mut Host,
) {
    let addresses = link.dialler.addresses();
    loop {
        tokio::select! {
            () = sleep_until(until) => return,
            () = host.moves(&addresses), if lost.may_be_hurried() => {
                backoff.begins_anew();
                let now = Instant::now();
                until = until.min(now + backoff.next(now, fastrand::f64()));
            }
        }
    }
}

/// One attempt, over these ways. It begins anew whenever this host moves or wakes up meanwhile. What has
/// happened to this host before is not read any more.
pub(super) async fn reach(
    link: &Link,
    ways: &[Way],
    epoch: &mut u64,
    host: &mut Host,
) -> Result<Ready, DialError> {
    host.forget();
    loop {
        let (mut watching, addresses) = (host.clone(), link.dialler.addresses());
        tokio::select! {
            reached = attempt(link, ways, epoch) => return reached,
            () = watching.moves(&addresses) => {
                debug!("this host has moved; dialling anew");
                *host = watching;
            }
        }
    }
}

async fn attempt(link: &Link, ways: &[Way], epoch: &mut u64) -> Result<Ready, DialError> {
    *epoch += 1;
    let place = Place {
        epoch: *epoch,
        slot: 0,
        slots: 1,
    };
    let hello = link.hello(place);
    Box::pin(link.dialler.reach(ways, &hello)).await
}
