//! Looking for a better connection while one serves: QUIC beside HTTP/2, and anything beside a QUIC
//! connection that has fallen silent.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::backoff::Backoff;
use super::connection::Pulse;
use super::dial::Ready;
use super::dial_error::DialError;
use super::policy::{Probing, Way};
use super::pool::Current;
use super::shared::{Link, Place};

/// How often a pulse is felt, in shares of the silence that matters.
const FEELS: u32 = 6;

/// Looks beside `current` until something better is ready, which may be never. Each attempt
/// takes a new epoch. Dropping the future gives it up.
pub(super) async fn seek(
    link: &Link,
    current: &Current,
    probing: &mut Probing,
    epoch: &mut u64,
) -> Ready {
    match link.policy.better_than(current.way) {
        [] => substitute(link, current, probing, epoch).await,
        better => probe(link, better, probing, epoch).await,
    }
}

/// Tries the better ways again and again.
async fn probe(link: &Link, better: &[Way], probing: &mut Probing, epoch: &mut u64) -> Ready {
    loop {
        let wait = probing.next(fastrand::f64());
        sleep(wait).await;
        match reach(link, better, epoch).await {
            Ok(ready) => return ready,
            Err(error) => debug!("no better way yet, after {wait:.1?}: {error}"),
        }
    }
}

/// Waits until the connection is in doubt, and tries all ways while it is.
async fn substitute(link: &Link, current: &Current, quic: &mut Probing, epoch: &mut u64) -> Ready {
    let within = link.policy.silence(link.venue.timeouts.quic.keep_alive);
    let pulse = &current.pulse;
    loop {
        let Some(heard) = silent(pulse, within).await else {
            return std::future::pending().await;
        };
        info!("nothing has come from the relay for {within:.1?}; trying other ways");
        quic.ended(current.way, current.begun.elapsed(), true);
        tokio::select! {
            ready = reach_in_the_end(link, quic, epoch) => {
                if pulse.received() == Some(heard) {
                    return ready;
                }
            }
            () = speaks(pulse, heard, within) => {}
        }
        debug!("the relay speaks again");
    }
}

/// Ready when nothing has come for so long: what had come by then. `None` where nobody counts.
async fn silent(pulse: &Pulse, within: Duration) -> Option<u64> {
    let (mut heard, mut since) = (pulse.received()?, Instant::now());
    loop {
        sleep(within / FEELS).await;
        let now = pulse.received()?;
        if now != heard {
            (heard, since) = (now, Instant::now());
        } else if since.elapsed() >= within {
            return Some(heard);
        }
    }
}

/// Ready when more has come than was `heard`.
async fn speaks(pulse: &Pulse, heard: u64, within: Duration) {
    while pulse.received() == Some(heard) {
        sleep(within / FEELS).await;
    }
}

async fn reach_in_the_end(link: &Link, quic: &Probing, epoch: &mut u64) -> Ready {
    let mut backoff = Backoff::new(Instant::now());
    loop {
        match reach(link, &link.policy.ways(quic), epoch).await {
            Ok(ready) => return ready,
            Err(error) => debug!("no other way: {error}"),
        }
        sleep(backoff.next(Instant::now(), fastrand::f64())).await;
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
