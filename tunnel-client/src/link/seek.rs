//! Looking for a better pool while one serves: QUIC beside HTTP/2, and anything beside a pool that has
//! fallen silent.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::dial::Ready;
use super::dial_error::DialError;
use super::lost::Lost;
use super::policy::{Probing, Way};
use super::pool::Current;
use super::pulse::Pulses;
use super::shared::{Link, Place};
use super::tunnel::TunnelError;

/// How often a pulse is felt, in shares of the silence that matters.
const FEELS: u32 = 6;
/// A QUIC connection that is to take over from HTTP/2 answers so many questions first …
const PROOFS: u64 = 5;
/// … so far apart …
const PROOFS_APART: Duration = Duration::from_millis(250);
/// … within this time, well before a relay has enough of who wishes for nothing.
const PROOF_PATIENCE: Duration = Duration::from_secs(3);

/// Looks beside `current` until something better is ready, which may be never. Each attempt
/// takes a new epoch. Dropping the future gives it up.
pub(super) async fn seek(
    link: &Link,
    current: &Current,
    probing: &mut Probing,
    epoch: &mut u64,
) -> Ready {
    let keep_alive = link.venue.timeouts.quic.keep_alive;
    loop {
        let round_trip = current.pulses.round_trip();
        let within = link.policy.silence(keep_alive, round_trip);
        let heard = tokio::select! {
            heard = silent(&current.pulses, within) => heard,
            ready = probe(link, current.way, probing, epoch) => return ready,
        };
        info!("nothing has come from the relay for {within:.1?}; trying other ways");
        let mut doubted = *probing;
        doubted.ended(current.way, current.begun.elapsed(), true);
        tokio::select! {
            ready = substitute(link, &doubted, epoch) => {
                if !has_spoken(&current.pulses, &heard) {
                    *probing = doubted;
                    return ready;
                }
            }
            () = speaks(&current.pulses, &heard, within) => {}
        }
        debug!("the relay speaks again");
    }
}

/// Tries what is better than `way` again and again.
async fn probe(link: &Link, way: Way, probing: &mut Probing, epoch: &mut u64) -> Ready {
    let better = link.policy.better_than(way);
    if better.is_empty() {
        return std::future::pending().await;
    }
    loop {
        sleep_until(probing.due(Instant::now(), fastrand::f64())).await;
        probing.probed();
        match reach(link, better, epoch).await {
            Ok(mut ready) => {
                let proving = ready.control.prove(PROOFS, PROOFS_APART, PROOF_PATIENCE);
                match proving.await {
                    Ok(()) => return ready,
                    Err(error) => {
                        debug!("a better way, but not for long: {error}");
                        let lost = Lost::from(TunnelError::from(error));
                        probing.ended(ready.way, Duration::ZERO, lost.is_silence());
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

/// Tries all ways until one is ready.
async fn substitute(link: &Link, quic: &Probing, epoch: &mut u64) -> Ready {
    let mut backoff = Backoff::new(Instant::now());
    loop {
        match reach(link, &link.policy.ways(quic), epoch).await {
            Ok(ready) => return ready,
            Err(error) => {
                debug!("no other way: {error}");
                sleep(Lost::from(error).wait(&mut backoff)).await;
            }
        }
    }
}

/// One attempt, over these ways.
pub(super) async fn reach(link: &Link, ways: &[Way], epoch: &mut u64) -> Result<Ready, DialError> {
    *epoch += 1;
    let place = Place {
        epoch: *epoch,
        slot: 0,
        slots: 1,
    };
    let hello = link.hello(place);
    Box::pin(link.dialler.reach(ways, &hello)).await
}
