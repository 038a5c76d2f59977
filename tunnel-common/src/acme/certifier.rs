//! Keeps one host name certified, for ever.
//!
//! ```text
//!   has one ── due ──▶ may order? ──▶ nothing to wait for? ──▶ order ──▶ on the disk ──▶ shown ─┐
//!     ▲  ▲                 │                                     │                              │
//!     │  └ on the disk ◀───┘ a replica's              wait ◀── failure                          │
//!     └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The old certificate serves until the new one is on the disk. Whatever goes wrong, it goes on trying, and
//! says why not and until when.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::ca::{Ca, Wait};
use super::chain::Chain;
use super::failure::Failure;
use super::order::Wish;
use super::renewal::{self, Window};
use super::site::Site;
use super::state::{CertificateState, date};
use crate::clock::Clock;
use crate::file_watch::{FileWatch, off_the_reactor};
use crate::hostname::Hostname;

/// The longest sleep at once: a host that was asleep itself, or whose clock was set, notices then.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);
/// How often the file is looked at, in which a replica or the user may have put a certificate, while there is
/// none.
const LOOK_FOR_FILE: Duration = Duration::from_secs(5);
/// The same while there is one.
const LOOK_AT_FILE: Duration = Duration::from_secs(5 * 60);
/// The authority is asked for its window no more often, and no less often (RFC 9773, 4.3.2).
const ASK_AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(24 * 60 * 60)];
/// When it is asked again if that failed (RFC 9773, 4.3.3).
const ASK_AFTER_FAILURE: Duration = Duration::from_secs(6 * 60 * 60);
/// No certificate is replaced within so much of its life, at the most: an authority that always says "now"
/// gets no order after the other.
const LEAST_USE: Duration = Duration::from_secs(60 * 60);

/// One host name, and what it takes to keep it certified.
#[derive(Debug)]
pub struct Certifier<C, S> {
    /// The name.
    pub host: Hostname,
    /// The key for which certificates are ordered.
    pub key: Arc<KeyPair>,
    /// Who issues them.
    pub ca: C,
    /// Where they are shown.
    pub site: S,
    /// Where the chain is kept.
    pub file: PathBuf,
    /// How many days before the end to renew; by default the authority says, or a third of the lifetime.
    pub renew_days: Option<u32>,
    /// Where the date comes from.
    pub clock: Clock,
}

/// A chain in use.
#[derive(Clone, Debug)]
struct Current {
    chain: Chain,
    /// Drawn once, so that the moment of the renewal stays.
    luck: f64,
    /// From when on it may be replaced.
    usable_until: SystemTime,
}

impl<C: Ca, S: Site> Certifier<C, S> {
    /// Keeps the name certified, beginning with the chain that is there. Dropping the future withdraws what is
    /// being ordered; what is shown stays.
    pub async fn keep(self, found: Option<Chain>) -> Infallible {
        let mut current = found.map(|chain| self.show(chain));
        loop {
            let known = current.as_ref().map(|current| current.chain.pem.clone());
            let renewing = self.renew(current.as_ref());
            let chain = tokio::select! {
                chain = renewing => chain,
                chain = self.found_on_disk(known) => chain,
            };
            current = Some(self.show(chain));
        }
    }

    /// Waits until the chain is due, and gives the next one, which is on the disk.
    async fn renew(&self, current: Option<&Current>) -> Chain {
        if let Some(current) = current {
            self.until_due(current).await;
        } else {
            self.site.tell(CertificateState::Ordering);
        }
        let mut unseen = 0;
        loop {
            self.site.may_order().await;
            if let Some(wait) = self.remembered().await {
                self.wait_out(&wait, current).await;
                continue;
            }
            let wish = Wish {
                host: &self.host,
                key: &self.key,
                replaces: current.map(|current| &current.chain),
            };
            match self.ca.order(wish, &self.site).await {
                Ok(chain) => {
                    self.store(&chain, current.is_none()).await;
                    self.remember(None).await;
                    return chain;
                }
                Err(failure) => self.has_failed(&failure, &mut unseen, current).await,
            }
        }
    }

    /// Shows a chain, and says until when.
    fn show(&self, chain: Chain) -> Current {
        self.site.install(&chain);
        let (luck, now) = (fastrand::f64(), self.now());
        let current = Current {
            luck,
            usable_until: now + LEAST_USE.min(chain.validity.lifetime() / 3),
            chain,
        };
        let (host, validity) = (&self.host, current.chain.validity);
        let (until, renewal) = (date(validity.not_after), date(self.due(&current, None)));
        match validity.is_over(now) {
            true => {
                warn!(%host, "the certificate of {host} has expired, on {until}; a new one is ordered");
            }
            false => info!(
                days = validity.days_left(now), %until, renewal,
                "an authority vouches for {host}"
            ),
        }
        current
    }

    fn due(&self, current: &Current, window: Option<Window>) -> SystemTime {
        let Current { chain, luck, .. } = current;
        renewal::due(chain.validity, window, self.renew_days, *luck)
    }

    /// Ready when the chain is to be renewed.
    async fn until_due(&self, current: &Current) {
        let (mut window, mut ask_at) = (None, self.now());
        loop {
            if self.now() >= ask_at {
                let asked = self.ask_window(current).await;
                (window, ask_at) = (asked.0.or(window), self.now() + asked.1);
            }
            let mut due = self.due(current, window);
            if !current.chain.validity.is_over(self.now()) {
                due = due.max(current.usable_until);
            }
            self.site.tell(CertificateState::Certified {
                validity: current.chain.validity,
                renewal: due,
                overdue: None,
            });
            if self.now() >= due {
                return;
            }
            self.until(due.min(ask_at)).await;
        }
    }

    /// When the authority wants it to be renewed, and how long not to ask again.
    async fn ask_window(&self, current: &Current) -> (Option<Window>, Duration) {
        if self.renew_days.is_some() || current.chain.validity.is_over(self.now()) {
            return (None, ASK_AFTER_FAILURE);
        }
        match self.ca.window(&current.chain).await {
            Ok(Some((window, again))) => (Some(window), again.clamp(ASK_AGAIN[0], ASK_AGAIN[1])),
            Ok(None) => (None, ASK_AGAIN[1]),
            Err(failure) => {
                info!(host = %self.host, "when to renew is decided without the authority: {failure}");
                (None, ASK_AFTER_FAILURE)
            }
        }
    }

    /// Ready with a chain that somebody else has put into the file.
    async fn found_on_disk(&self, known: Option<String>) -> Chain {
        let pause = match known {
            None => LOOK_FOR_FILE,
            Some(_) => LOOK_AT_FILE,
        };
        let mut file = FileWatch::new(vec![self.file.clone()], pause);
        loop {
            file.changed().await;
            match self.read().await {
                Ok(Some(chain))
                    if Some(&chain.pem) != known.as_ref() && chain.is_for(&self.host) =>
                {
                    return chain;
                }
                Ok(_) => {}
                Err(why) => warn!("{why}"),
            }
        }
    }

    async fn read(&self) -> Result<Option<Chain>, String> {
        let (file, key) = (self.file.clone(), self.key.clone());
        let read = off_the_reactor(move || Chain::read(&file, &key)).await;
        read.map_err(|error| error.to_string())
    }

    /// Puts a chain on the disk, however long that takes. Where nothing was shown before, it is shown at once.
    async fn store(&self, chain: &Chain, is_first: bool) {
        let mut failures = 0;
        loop {
            let (new, file, key) = (chain.clone(), self.file.clone(), self.key.clone());
            let Err(error) = off_the_reactor(move || new.write(&file, &key)).await else {
                return;
            };
            if is_first && failures == 0 {
                self.site.install(chain);
            }
            failures += 1;
            let wait = renewal::wait(failures, false, None, fastrand::f64());
            let file = self.file.display();
            error!(
                "the new certificate can not be written to {file}: {error}; again in {wait:.0?}"
            );
            sleep(wait).await;
        }
    }

    /// Says why there is no certificate, and waits before the next attempt. What the authority has counted is
    /// remembered across starts; of what it has not seen, `unseen` counts the failures in a row.
    async fn has_failed(&self, failure: &Failure, unseen: &mut u32, current: Option<&Current>) {
        let counted = failure.is_counted();
        let failures = if counted {
            let before = self.ca.wait(&self.host).await.ok().flatten();
            before.map_or(0, |before| before.failures) + 1
        } else {
            *unseen += 1;
            *unseen
        };
        let pause = renewal::wait(failures, counted, failure.retry_after(), fastrand::f64());
        let wait = Wait {
            until: self.now() + pause,
            failures,
            why: failure.to_string(),
        };
        if counted {
            self.remember(Some(wait.clone())).await;
        }
        self.wait_out(&wait, current).await;
    }

    /// Until when nobody may be asked, if that is not over.
    async fn remembered(&self) -> Option<Wait> {
        let wait = self.ca.wait(&self.host).await;
        let wait = wait.unwrap_or_else(|failure| {
            warn!("{failure}");
            None
        });
        wait.filter(|wait| wait.until > self.now())
    }

    async fn remember(&self, wait: Option<Wait>) {
        if let Err(failure) = self.ca.remember(&self.host, wait).await {
            warn!("until when to wait can not be remembered: {failure}");
        }
    }

    async fn wait_out(&self, wait: &Wait, current: Option<&Current>) {
        let (host, until, why) = (&self.host, wait.until, wait.why.clone());
        warn!(
            "no certificate for {host} yet, waiting until {}: {why}",
            date(until)
        );
        self.site.tell(match current {
            None => CertificateState::Waiting { until, why },
            Some(current) => CertificateState::Certified {
                validity: current.chain.validity,
                renewal: until,
                overdue: Some(why),
            },
        });
        self.until(until).await;
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.clock.since_epoch()
    }

    async fn until(&self, time: SystemTime) {
        while let Ok(left) = time.duration_since(self.now())
            && !left.is_zero()
        {
            sleep(left.min(LOOK_AT_CLOCK)).await;
        }
    }
}

#[cfg(test)]
mod tests;
