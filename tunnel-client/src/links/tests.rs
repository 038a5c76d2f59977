//! Links that only pretend to be kept, under a paused clock.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tunnel_common::wire::code::Code;

use super::*;

/// What becomes of a link that is kept.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is refused for good after so long.
    Refused(Duration),
    /// A fault ends it at once.
    Fault,
}

use Fate::{Fault, Refused as Refuses};

const AT_ONCE: Duration = Duration::ZERO;
const MINUTE: Duration = Duration::from_secs(60);

/// Links that run, and when each was begun.
struct Running {
    start: Instant,
    begun: Arc<Mutex<Vec<(usize, Duration)>>>,
    shutdown: CancellationToken,
    links: JoinHandle<Result<(), Refused>>,
}

/// One link for each of `fates`: what becomes of it the first time, and later. Behind these it
/// serves until it is shut down.
fn running<const N: usize>(fates: [&[Fate]; N]) -> Running {
    let (start, shutdown) = (Instant::now(), CancellationToken::new());
    let begun: Arc<Mutex<Vec<_>>> = Arc::default();
    let fates = fates.map(|fates| Arc::new(Mutex::new(VecDeque::from_iter(fates.iter().copied()))));
    let relays = (0..N).map(|number| format!("relay-{number}").parse().expect("a relay"));
    let keep = {
        let (begun, shutdown) = (begun.clone(), shutdown.clone());
        move |number: usize| {
            let (begun, shutdown, fates) = (begun.clone(), shutdown.clone(), fates[number].clone());
            async move {
                let now = (number, start.elapsed());
                begun.lock().expect("not poisoned").push(now);
                let fate = fates.lock().expect("not poisoned").pop_front();
                match fate {
                    Some(Refuses(after)) => {
                        until(Instant::now() + after).await;
                        Err(refusal(number))
                    }
                    Some(Fault) => panic!("a fault of the test's"),
                    None => {
                        shutdown.cancelled().await;
                        Ok(())
                    }
                }
            }
        }
    };
    let links = Links::new(relays, keep, shutdown.clone());
    Running {
        start,
        begun,
        shutdown,
        links: tokio::spawn(links.run()),
    }
}

/// Lets the paused clock go on to `end`.
async fn until(end: Instant) {
    let _ = timeout_at(end, pending::<()>()).await;
}

fn refusal(number: usize) -> Refused {
    Refused {
        code: Code::Refused.number(),
        text: format!("{number} says no"),
        retry_after: None,
    }
}

impl Running {
    /// When this link was begun, after so long altogether.
    async fn begun(&self, number: usize, after: Duration) -> Vec<Duration> {
        until(self.start + after).await;
        let begun = self.begun.lock().expect("not poisoned");
        let mine = begun.iter().filter(|(of, _)| *of == number);
        mine.map(|(_, at)| *at).collect()
    }

    /// How it ends, and after how long.
    async fn ends(self) -> (Result<(), Refused>, Duration) {
        let ended = timeout(100 * MINUTE, self.links).await.expect("ends");
        (ended.expect("no panic"), self.start.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_good_asks_again_while_another_is_not_and_all_end_when_told() {
    let links = running([&[], &[Refuses(AT_ONCE), Refuses(MINUTE)]]);
    let begun = links.begun(1, 25 * MINUTE).await;
    let minutes: Vec<_> = begun.iter().map(|at| at.as_secs() / 60).collect();
    assert_eq!(minutes, [0, 10, 21]);
    assert_eq!(links.begun(0, 25 * MINUTE).await, [AT_ONCE]);
    links.shutdown.cancel();
    assert_eq!(links.ends().await.0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_to_ask_again_ends_when_told() {
    let links = running([&[], &[Refuses(AT_ONCE)]]);
    assert_eq!(links.begun(1, MINUTE).await.len(), 1);
    links.shutdown.cancel();
    let (ended, after) = links.ends().await;
    assert_eq!(ended, Ok(()));
    assert!(after < 2 * MINUTE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_of_the_last_that_was_not_refused_ends_them() {
    let links = running([&[Refuses(9 * MINUTE)], &[Refuses(AT_ONCE)]]);
    let (ended, after) = links.ends().await;
    assert_eq!(ended, Err(refusal(0)));
    assert!(after < 10 * MINUTE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_refused_and_is_taken_now_keeps_them_going() {
    let links = running([&[Refuses(15 * MINUTE)], &[Refuses(AT_ONCE)]]);
    let begun = links.begun(0, 30 * MINUTE).await;
    assert_eq!(begun.len(), 2, "it asks again beside the other: {begun:?}");
    links.shutdown.cancel();
    assert_eq!(links.ends().await.0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_fault_in_one_is_that_ones_alone_and_it_begins_anew() {
    let links = running([&[], &[Fault, Fault]]);
    assert_eq!(links.begun(1, MINUTE).await.len(), 3);
    assert_eq!(links.begun(0, MINUTE).await, [AT_ONCE]);
    links.shutdown.cancel();
    assert_eq!(links.ends().await.0, Ok(()));
}
