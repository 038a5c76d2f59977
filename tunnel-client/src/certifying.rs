//! Keeps certificates for the names of the first endpoint: those that the user has brought, or one from a
//! certificate authority for each name, as long as a relay serves it.
//!
//! What an agent does in place of a relay, and the other way round, is in [`Site`](tunnel_common::acme::site::Site): a relay says who of several
//! replicas orders, all relays are told before an authority comes, and what it is shown stands in the
//! endpoint.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use tokio::task::{AbortHandle, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};
use tunnel_common::acme::certifier::Certifier;
use tunnel_common::acme::chain::Chain;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::pem_pair::LOOK_EVERY;

use self::at::{At, Place};
use crate::announcements::Announcements;
use crate::config::{Certificates, Issued};
use crate::endpoint::Endpoint;
use crate::link::relay_trust::is_local;
use crate::new_names::{MAX_A_DAY, NewNames};
use crate::standing::Standing;
use crate::visit::Venue;

mod at;

/// Names that are certified at one time: a relay says under which domains it serves us, and each is an
/// order.
const MAX_HOSTS: usize = 32;
/// The wait after a fault of ours.
const FAULT_WAIT: Duration = Duration::from_secs(60);

/// Keeps the certificates of an agent.
#[derive(Debug)]
pub(crate) struct Certifying {
    how: Certificates,
    place: Place,
    clock: Clock,
}

impl Certifying {
    /// Certificates for the first endpoint of `venue`. What the user has brought is shown from now on, and
    /// relays are told if any are to be ordered.
    pub(crate) fn new(
        how: Certificates,
        venue: Arc<Venue>,
        standing: Arc<Standing>,
        announcements: Announcements,
        clock: Clock,
    ) -> Self {
        let place = Place {
            venue,
            standing,
            announcements,
        };
        match (&how, place.endpoint()) {
            (Certificates::Brought { first, .. }, Some(endpoint)) => {
                endpoint.show_brought(first.clone());
            }
            (Certificates::Issued(_), Some(endpoint)) if endpoint.ends_tls() => {
                endpoint.will_order();
            }
            _ => {}
        }
        Self { how, place, clock }
    }

    /// Goes on for ever. Dropping the future leaves what is shown as it is.
    pub(crate) async fn keep(self) -> Infallible {
        let Self { how, place, clock } = self;
        if let Some(endpoint) = place.endpoint().filter(|endpoint| endpoint.ends_tls()) {
            match how {
                Certificates::SelfSigned => tell_how(endpoint).await,
                Certificates::Brought { files, first } => {
                    let show = |certificate| endpoint.show_brought(certificate);
                    files.watch(first, clock, LOOK_EVERY, show).await;
                }
                Certificates::Issued(how) => {
                    Issuing::new(*how, endpoint, &place, clock).keep().await;
                }
            }
        }
        std::future::pending().await
    }
}

/// Says once, when a public name is served, how its visitors would get a certificate that they trust.
async fn tell_how(endpoint: &Endpoint) {
    let mut served = endpoint.served();
    let is_public = |host: &Hostname| !is_local(host.as_str());
    let hosts = served
        .wait_for(|served| served.hosts().iter().any(is_public))
        .await;
    if hosts.is_ok() {
        info!(
            "visitors get a self-signed certificate; for one that browsers trust give --acme-email \
             ADDRESS, or bring one by --tls-cert and --tls-key"
        );
    }
}

/// Orders certificates for as many names as are served.
struct Issuing<'a> {
    how: Issued,
    key: Arc<KeyPair>,
    endpoint: &'a Endpoint,
    place: &'a Place,
    clock: Clock,
    /// Also names that have gone, until their tasks have ended.
    by_host: HashMap<Hostname, AbortHandle>,
    keeping: JoinSet<Infallible>,
    /// The name whose chain is in the file that the user names.
    main: Option<Hostname>,
    new_names: NewNames,
    /// Whether it was told that there are too many names.
    is_full: bool,
}

impl<'a> Issuing<'a> {
    fn new(mut how: Issued, endpoint: &'a Endpoint, place: &'a Place, clock: Clock) -> Self {
        let own = how.key.take().map(Arc::new);
        let key = own.unwrap_or_else(|| endpoint.key().clone());
        Self {
            how,
            key,
            endpoint,
            place,
            clock,
            by_host: HashMap::new(),
            keeping: JoinSet::new(),
            main: None,
            new_names: NewNames::default(),
            is_full: false,
        }
    }

    async fn keep(&mut self) {
        let mut served = self.endpoint.served();
        loop {
            let hosts = served.borrow_and_update().hosts();
            let gone = self
                .by_host
                .iter()
                .filter(|(host, _)| !hosts.contains(host));
            gone.for_each(|(_, keeping)| keeping.abort());
            let mut room = None;
            for host in hosts {
                if self.by_host.contains_key(&host) || self.is_full_for(&host) {
                    continue;
                }
                match self.new_names.begin(&host, Instant::now()) {
                    Ok(()) => self.begin(host, Duration::ZERO).await,
                    Err(too_many) => {
                        tell_too_many(&host, too_many.is_news);
                        room = Some(too_many.until);
                    }
                }
            }
            tokio::select! {
                changed = served.changed() => if changed.is_err() {
                    return;
                },
                () = until(room) => {}
                Some(Err(end)) = self.keeping.join_next_with_id() => self.has_ended(&end).await,
            }
        }
    }

    /// Whether so many names are cared for that there is no room for `host`.
    fn is_full_for(&mut self, host: &Hostname) -> bool {
        let is_full = self.by_host.len() >= MAX_HOSTS;
        if is_full && !std::mem::replace(&mut self.is_full, true) {
            warn!(%host, "no certificate is ordered for this name and others: {MAX_HOSTS} are cared for");
        }
        is_full
    }

    /// Begins to keep a name certified, after a wait.
    async fn begin(&mut self, host: Hostname, wait: Duration) {
        if !self.how.any_name && is_local(host.as_str()) {
            info!(
                "no certificate is ordered for {host}: no public authority certifies such a name"
            );
            return self.is_left_alone(host);
        }
        let (file, found) = self.find(&host).await;
        let certifier = Certifier {
            host: host.clone(),
            key: self.key.clone(),
            ca: self.how.acme.clone(),
            site: At::new(host.clone(), self.place.clone()),
            file,
            renew_days: self.how.renew_days,
            clock: self.clock.clone(),
        };
        let keeping = self.keeping.spawn(async move {
            sleep(wait).await;
            certifier.keep(found).await
        });
        self.by_host.insert(host, keeping);
    }

    /// Remembers that nothing is done for a name.
    fn is_left_alone(&mut self, host: Hostname) {
        let nothing = self.keeping.spawn(std::future::pending());
        self.by_host.insert(host, nothing);
    }

    /// The file for the chain of a name, and what is in it: the one that the user names, unless that has
    /// another name's.
    async fn find(&mut self, host: &Hostname) -> (PathBuf, Option<Chain>) {
        let main = self.how.file.clone();
        let is_free = self.main.as_ref().is_none_or(|other| other == host);
        let found = read(&main, &self.key).await;
        if found.as_ref().map_or(is_free, |chain| chain.is_for(host)) {
            self.main = Some(host.clone());
            return (main, found);
        }
        let beside = beside(&main, host);
        let found = read(&beside, &self.key).await;
        (beside, found.filter(|chain| chain.is_for(host)))
    }

    /// The task of a name has ended: by a panic, which the log has told, or because the name has gone. Only now
    /// nobody tells anything of it any more.
    async fn has_ended(&mut self, end: &JoinError) {
        let mut names = self.by_host.iter();
        let ended = names.find(|(_, keeping)| keeping.id() == end.id());
        let Some(host) = ended.map(|(host, _)| host.clone()) else {
            return;
        };
        self.by_host.remove(&host);
        if end.is_panic() {
            error!(%host, "a fault of ours has ended the care for a certificate; it begins anew in {FAULT_WAIT:?}");
            return self.begin(host, FAULT_WAIT).await;
        }
        self.endpoint.certificates().forget(&host);
        let standing = &self.place.standing;
        standing.certificate_is(self.endpoint.name(), &host, None);
    }
}

fn tell_too_many(host: &Hostname, is_news: bool) {
    if is_news {
        warn!(
            %host,
            "no certificate is ordered for this name and others: the relays had {MAX_A_DAY} new names for us \
             within a day"
        );
    }
}

/// Until then; for ever where nothing is to come.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The chain in a file, if it is one for our key. What is wrong is told.
async fn read(file: &Path, key: &Arc<KeyPair>) -> Option<Chain> {
    let (file, key) = (file.to_owned(), key.clone());
    let read = survived(move || Chain::read(&file, &key)).await?;
    read.unwrap_or_else(|error| {
        warn!("{error}");
        None
    })
}

/// What `work` gives, which may block the thread; nothing if it panics: one name must not end the agent.
async fn survived<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = spawn_blocking(work).await;
    let told = |fault| error!("a fault of ours while a certificate was read: {fault}");
    done.map_err(told).ok()
}

/// `acme_cert.pem` → `acme_cert.<host>.pem`.
fn beside(main: &Path, host: &Hostname) -> PathBuf {
    let part =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(main.file_stem()), part(main.extension()));
    main.with_file_name(format!("{stem}.{host}.{extension}"))
}

#[cfg(test)]
mod tests;
