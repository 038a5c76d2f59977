//! One watcher for the whole agent, and its news for everybody who may have to act.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info};

use super::network::{ANYWHERE, Changes};
use super::sleep::{TICK, now, slept};
use super::source::sources;

/// What falls silent so soon after this host has woken up fell silent while it slept: longer than any
/// tunnel takes to notice.
const AFTERMATH: Duration = Duration::from_secs(15);

/// Something has happened to this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It slept, or this process was stopped, and runs again.
    Woke,
    /// Links, addresses or routes have changed, of whatever network.
    Network,
}

/// How often what has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    wakes: u64,
    changes: u64,
}

/// This host, as one reader of its news sees it. Clones are readers of their own, which have read as
/// much.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    watched: Arc<Watched>,
    events: watch::Receiver<Events>,
    read: Events,
}

#[derive(Debug)]
struct Watched {
    events: watch::Sender<Events>,
    rest: Mutex<Rest>,
}

/// By the clock of [`now`].
#[derive(Debug)]
struct Rest {
    looked: Duration,
    woke: Option<Duration>,
}

impl Host {
    /// Knows no news before somebody [watches](Self::watch).
    pub(crate) fn new() -> Self {
        let (sender, events) = watch::channel(Events::default());
        let rest = Rest {
            looked: now(),
            woke: None,
        };
        Self {
            watched: Arc::new(Watched {
                events: sender,
                rest: Mutex::new(rest),
            }),
            events,
            read: Events::default(),
        }
    }

    /// Watches this host, for all readers. Never ready; dropping the future ends it.
    pub(crate) async fn watch(&self) -> Infallible {
        tokio::join!(self.watched.network(), self.watched.rest()).0
    }

    /// The next news that this reader has not read. Several of one kind are one. Cancel safe.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let events = *self.events.borrow_and_update();
            if events.wakes != self.read.wakes {
                self.read.wakes = events.wakes;
                return News::Woke;
            }
            if events.changes != self.read.changes {
                self.read.changes = events.changes;
                return News::Network;
            }
            if self.events.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What has happened so far is no news.
    pub(crate) fn forget(&mut self) {
        self.read = *self.events.borrow_and_update();
    }

    /// Ready when this host would send to one of `remotes` from another address than when this began, or
    /// has slept. Where no remote is known, to anywhere. Reads the news. Cancel safe.
    pub(crate) async fn moves(&mut self, remotes: &[SocketAddr]) {
        let remotes = match remotes {
            [] => &ANYWHERE,
            known => known,
        };
        let before = sources(remotes);
        while self.next().await == News::Network {
            if sources(remotes) != before {
                break;
            }
        }
    }

    /// Whether this host has just woken up, even if nobody has been told yet.
    pub(crate) fn has_just_woken(&self) -> bool {
        let now = self.watched.look();
        let rest = self.watched.rest.lock();
        let rest = rest.unwrap_or_else(PoisonError::into_inner);
        rest.woke
            .is_some_and(|woke| now.saturating_sub(woke) < AFTERMATH)
    }

    /// Tells these news, as the watcher would.
    #[cfg(test)]
    pub(crate) fn tell(&self, news: News) {
        self.watched.tell(news);
    }
}

impl Watched {
    async fn network(&self) -> Infallible {
        let mut changes = Changes::listen();
        loop {
            changes.next().await;
            debug!("the networks of this host have changed");
            self.tell(News::Network);
        }
    }

    async fn rest(&self) -> Infallible {
        loop {
            sleep(TICK).await;
            self.look();
        }
    }

    /// Looks at the clock, and gives the time.
    fn look(&self) -> Duration {
        let now = now();
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = slept(now.saturating_sub(rest.looked));
        rest.looked = now;
        if let Some(slept) = slept {
            rest.woke = Some(now);
            info!("this host slept, or the process was stopped, for {slept:.1?}");
            self.tell(News::Woke);
        }
        now
    }

    fn tell(&self, news: News) {
        self.events.send_modify(|events| match news {
            News::Woke => events.wakes += 1,
            News::Network => events.changes += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn each_reader_is_told_once_and_of_nothing_that_it_forgot() {
        let mut first = Host::new();
        let mut second = first.clone();
        first.tell(News::Network);
        first.tell(News::Network);
        first.tell(News::Woke);
        assert_eq!(first.next().await, News::Woke);
        assert_eq!(first.next().await, News::Network);
        second.forget();
        second.tell(News::Woke);
        assert_eq!(second.next().await, News::Woke);
        assert_eq!(first.next().await, News::Woke);
    }

    #[tokio::test]
    async fn changes_of_other_networks_move_nobody_and_a_long_sleep_does() {
        let mut host = Host::new();
        let itself = "127.0.0.1:4433".parse().expect("an address");
        host.tell(News::Network);
        assert!(host.moves(&[itself]).now_or_never().is_none());
        host.tell(News::Woke);
        host.moves(&[itself]).await;
    }

    #[tokio::test]
    async fn a_sleep_that_nobody_was_told_of_yet_is_known_to_whoever_asks() {
        let mut host = Host::new();
        assert!(!host.has_just_woken());
        let nap = Duration::from_secs(10);
        host.watched.rest.lock().expect("not poisoned").looked = now().saturating_sub(nap);
        assert!(host.has_just_woken());
        assert_eq!(host.next().await, News::Woke);
    }
}
