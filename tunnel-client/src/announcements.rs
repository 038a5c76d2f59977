//! What all relays must know while a certificate authority comes to look: at which of our names.
//!
//! ```text
//!   announce ──▶ a new list ──▶ each tunnel says it, and asks behind it whether the relay is there
//!      ▲                                             │ the answer: it has heard the list
//!      └───────────── all have heard ◀───────────────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::hostname::Hostname;

/// For all relays to hear of it. One that is slower will not have heard when the authority comes; with one
/// that has, it may still find us.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names at which an authority may come now, and who has heard of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcements(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    list: watch::Sender<List>,
    /// What each tunnel's relay has heard, by the tunnel's number.
    heard: watch::Sender<HashMap<u64, u64>>,
    next: AtomicU64,
}

/// The names, and which list this is: each change counts one up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) rev: u64,
    pub(crate) hosts: Vec<Hostname>,
}

/// A tunnel that tells its relay. Dropping it is the tunnel's end.
#[derive(Debug)]
pub(crate) struct Teller {
    announcements: Announcements,
    number: u64,
    list: watch::Receiver<List>,
    /// The list that was told last.
    told: List,
}

/// A name at which an authority may come until this is dropped.
#[derive(Debug)]
pub(crate) struct Announced {
    announcements: Announcements,
    host: Hostname,
}

/// No relay has heard of it.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("no relay is connected that could send it here")]
pub(crate) struct NobodyHeard;

impl Announcements {
    /// Tells all relays that an authority may come to `host`, and waits until they have heard: 5 s at most.
    /// Dropping the future, or what it gives, takes it back.
    pub(crate) async fn announce(&self, host: &Hostname) -> Result<Announced, NobodyHeard> {
        let mut rev = 0;
        self.0.list.send_modify(|list| {
            list.rev += 1;
            list.hosts.push(host.clone());
            rev = list.rev;
        });
        let announced = Announced {
            announcements: self.clone(),
            host: host.clone(),
        };
        let mut heard = self.0.heard.subscribe();
        let have = |heard: &HashMap<u64, u64>| {
            !heard.is_empty() && heard.values().all(|heard| *heard >= rev)
        };
        if timeout(PATIENCE, heard.wait_for(have)).await.is_err() {
            let some = heard.borrow().values().any(|heard| *heard >= rev);
            if !some {
                return Err(NobodyHeard);
            }
            debug!(%host, "not every relay has heard in time that an authority comes");
        }
        Ok(announced)
    }

    /// A tunnel that tells its relay from now on.
    pub(crate) fn teller(&self) -> Teller {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.heard.send_modify(|heard| {
            heard.insert(number, 0);
        });
        Teller {
            announcements: self.clone(),
            number,
            list: self.0.list.subscribe(),
            told: List::default(),
        }
    }
}

/// What a relay is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Of which list.
    pub(crate) rev: u64,
    /// Names at which an authority may come now.
    pub(crate) begun: Vec<Hostname>,
    /// Names at which none will.
    pub(crate) over: Vec<Hostname>,
}

impl Teller {
    /// The next change, as soon as there is one; it counts as told. Cancel safe.
    pub(crate) async fn next(&mut self) -> Change {
        let told = self.told.rev;
        let news = self.list.wait_for(|list| list.rev > told).await;
        let Ok(news) = news.map(|list| list.clone()) else {
            // What announces lives as long as the agent.
            return std::future::pending().await;
        };
        let among = |list: &List, host: &Hostname| list.hosts.contains(host);
        let (old, new) = (&self.told, &news);
        let begun = new.hosts.iter().filter(|host| !among(old, host));
        let over = old.hosts.iter().filter(|host| !among(new, host));
        let change = Change {
            rev: new.rev,
            begun: begun.cloned().collect(),
            over: over.cloned().collect(),
        };
        self.told = news;
        change
    }

    /// The relay has heard the list of this number.
    pub(crate) fn heard(&self, rev: u64) {
        self.announcements.0.heard.send_modify(|heard| {
            heard.insert(self.number, rev);
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.announcements.0.heard.send_modify(|heard| {
            heard.remove(&self.number);
        });
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.announcements.0.list.send_modify(|list| {
            list.rev += 1;
            if let Some(at) = list.hosts.iter().position(|host| *host == self.host) {
                list.hosts.remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Hostname {
        "a.example".parse().expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn an_announcement_is_up_when_every_relay_has_heard_and_over_when_it_is_dropped() {
        let announcements = Announcements::default();
        let (mut first, mut second) = (announcements.teller(), announcements.teller());
        let relays = async {
            let change = first.next().await;
            assert_eq!(
                (&change.begun[..], &change.over[..]),
                (&[host()][..], &[][..])
            );
            first.heard(change.rev);
            let change = second.next().await;
            second.heard(change.rev);
        };
        let (announced, ()) = tokio::join!(async { announcements.announce(&host()).await }, relays);
        drop(announced.expect("is heard"));
        let change = first.next().await;
        assert_eq!(
            (&change.begun[..], &change.over[..]),
            (&[][..], &[host()][..])
        );
        let mut late = announcements.teller();
        assert_eq!(late.next().await.begun, [], "who comes later hears of none");
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_holds_nobody_up_for_long_and_nobody_at_all_is_an_error() {
        let announcements = Announcements::default();
        let nobody = announcements.announce(&host()).await;
        assert_eq!(nobody.expect_err("no relay"), NobodyHeard);
        let (mut quick, _deaf) = (announcements.teller(), announcements.teller());
        let hears = async {
            let change = quick.next().await;
            assert_eq!(change.begun, [host()]);
            quick.heard(change.rev);
        };
        let (announced, ()) = tokio::join!(async { announcements.announce(&host()).await }, hears);
        announced.expect("one has heard");
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_that_goes_is_not_waited_for() {
        let announcements = Announcements::default();
        let (mut stays, goes) = (announcements.teller(), announcements.teller());
        let hears = async {
            let change = stays.next().await;
            stays.heard(change.rev);
            drop(goes);
        };
        let begun = tokio::time::Instant::now();
        let (announced, ()) = tokio::join!(async { announcements.announce(&host()).await }, hears);
        announced.expect("all that are left have heard");
        assert!(begun.elapsed() < PATIENCE);
    }
}
