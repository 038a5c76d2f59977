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
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::ca::{Ca, Wait};
use super::chain::{Chain, ChainFileError};
use super::failure::Failure;
use super::order::Wish;
use super::renewal::{self, Window};
use super::site::Site;
use super::state::CertificateState;
use crate::clock::{Clock, date};
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
/// The longest wait at once.
const LONGEST_WAIT: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// How often the log tells when a certificate will be renewed.
const TELL_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// No certificate that was just issued is replaced within so much of its life, at the most: an authority that always says "now"
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
    replaceable_at: Instant,
}

impl<C: Ca, S: Site> Certifier<C, S> {
    /// Keeps the name certified, beginning with the chain that is there. Dropping the future withdraws what is
    /// being ordered; what is shown stays.
    pub async fn keep(self, found: Option<Chain>) -> Infallible {
        let mut current = found.map(|chain| self.show(chain, Duration::ZERO));
        loop {
            let (chain, least_use) = tokio::select! {
                chain = self.renew(current.as_ref()) => {
                    let lifetime = chain.validity.lifetime();
                    (chain, LEAST_USE.min(lifetime / 3))
                }
                chain = self.found_on_disk(current.as_ref()) => (chain, Duration::ZERO),
            };
            let is_first = current.is_none();
            current = Some(self.show(chain, least_use));
            self.remember(None).await;
            if is_first {
                self.ca.has_issued(&self.host).await;
            }
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
            match self.order(current).await {
                Ok(chain) => {
                    self.store(&chain, current).await;
                    return chain;
                }
                Err(failure) => self.has_failed(&failure, &mut unseen, current).await,
            }
        }
    }

    /// Orders the next chain, unless there is no place for it.
    async fn order(&self, current: Option<&Current>) -> Result<Chain, Failure> {
        if let Some(other) = self.read().await?.filter(|chain| !chain.is_for(&self.host)) {
            let (path, names) = (self.file.clone(), other.names.join(", "));
            let source =
                io::Error::other(format!("it holds a certificate for {names}; move it away"));
            return Err(Failure::File { path, source });
        }
        let wish = Wish {
            host: &self.host,
            key: &self.key,
            replaces: current.map(|current| &current.chain),
        };
        self.ca.order(wish, &self.site).await
    }

    /// Shows a chain, which is not replaced for some time.
    fn show(&self, chain: Chain, least_use: Duration) -> Current {
        self.site.install(&chain);
        let (host, until, now) = (&self.host, date(chain.validity.not_after), self.now());
        match chain.validity.is_over(now) {
            true => {
                warn!(%host, "the certificate of {host} has expired, on {until}; a new one is ordered");
            }
            false => info!(
                days = chain.validity.days_left(now), %until,
                "an authority vouches for {host}"
            ),
        }
        Current {
            chain,
            luck: fastrand::f64(),
            replaceable_at: Instant::now() + least_use,
        }
    }

    fn due(&self, current: &Current, window: Option<Window>) -> SystemTime {
        let Current { chain, luck, .. } = current;
        renewal::due(chain.validity, window, self.renew_days, *luck)
    }

    /// Ready when the chain is to be renewed. The log tells when that will be, at each change and once a day.
    async fn until_due(&self, current: &Current) {
        let validity = current.chain.validity;
        let (mut window, mut ask_at) = (None, Instant::now());
        let mut told: Option<(SystemTime, Instant)> = None;
        loop {
            if Instant::now() >= ask_at {
                let asked = self.ask_window(current).await;
                (window, ask_at) = (asked.0.or(window), Instant::now() + asked.1);
            }
            let renewal = self.due(current, window);
            let is_due = self.now() >= renewal;
            self.site.tell(CertificateState::Certified {
                validity,
                renewal,
                overdue: None,
            });
            if is_due && (Instant::now() >= current.replaceable_at || validity.is_over(self.now()))
            {
                return;
            }
            let is_news = told.is_none_or(|(due, at)| due != renewal || at.elapsed() >= TELL_AGAIN);
            if is_news {
                let (host, days) = (&self.host, validity.days_left(self.now()));
                info!(
                    days,
                    renewal = date(renewal),
                    "the certificate of {host} will be renewed"
                );
                told = Some((renewal, Instant::now()));
            }
            let tell_again = Instant::now() + TELL_AGAIN;
            match is_due {
                true => sleep_until(current.replaceable_at.min(ask_at)).await,
                false => self.until(renewal, ask_at.min(tell_again)).await,
            }
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

    /// Ready with a chain that somebody else has put into the file, and which is good for longer than ours.
    async fn found_on_disk(&self, current: Option<&Current>) -> Chain {
        let (pause, ours) = match current {
            None => (LOOK_FOR_FILE, None),
            Some(current) => (LOOK_AT_FILE, Some(current.chain.validity.not_after)),
        };
        let is_better = |chain: &Chain| {
            let until = chain.validity.not_after;
            chain.is_for(&self.host) && until > self.now() && ours.is_none_or(|ours| until > ours)
        };
        let mut file = FileWatch::new(vec![self.file.clone()], pause);
        loop {
            file.changed().await;
            match self.read().await {
                Ok(Some(chain)) if is_better(&chain) => return chain,
                Ok(_) => {}
                Err(error) => warn!("{error}"),
            }
        }
    }

    async fn read(&self) -> Result<Option<Chain>, ChainFileError> {
        let (file, key) = (self.file.clone(), self.key.clone());
        off_the_reactor(move || Chain::read(&file, &key)).await
    }

    /// Puts a chain on the disk, however long that takes. Meanwhile it is shown if nothing else of use is.
    async fn store(&self, chain: &Chain, current: Option<&Current>) {
        let mut failures = 0;
        loop {
            let (new, file) = (chain.clone(), self.file.clone());
            let (key, host) = (self.key.clone(), self.host.clone());
            let Err(error) = off_the_reactor(move || new.write(&file, &key, &host)).await else {
                return;
            };
            if current.is_none_or(|current| current.chain.validity.is_over(self.now())) {
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
        let now = self.now();
        let wait = Wait {
            since: now,
            until: now.checked_add(pause).unwrap_or(now),
            failures,
            why: failure.to_string(),
        };
        // Whoever asks for a pause has counted, too.
        if counted || failure.retry_after().is_some() {
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
        let now = self.now();
        wait.filter(|wait| wait.since <= now && now < wait.until)
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
        self.until(until, Instant::now() + LONGEST_WAIT).await;
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// Ready at `time`, or after as long as it was away, whichever comes first: the clock may be set back. And
    /// not later than `latest`.
    async fn until(&self, time: SystemTime, latest: Instant) {
        let away = time.duration_since(self.now()).unwrap_or_default();
        let latest = Instant::now()
            .checked_add(away)
            .map_or(latest, |then| then.min(latest));
        while let Ok(left) = time.duration_since(self.now())
            && !left.is_zero()
            && Instant::now() < latest
        {
            sleep_until(latest.min(Instant::now() + left.min(LOOK_AT_CLOCK))).await;
        }
    }
}

#[cfg(test)]
mod tests;
