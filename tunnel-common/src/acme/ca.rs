//! A certificate authority, as whoever keeps names certified sees it.

use std::time::{Duration, SystemTime};

use instant_acme::{CertificateIdentifier, Error};
use tracing::info;

use super::account::{account, forget, known};
use super::authority::Authority;
use super::caa;
use super::chain::Chain;
use super::challenge::Answer;
use super::client::CaClient;
use super::credentials::{CredentialsFile, StoredWait};
use super::failure::Failure;
use super::order::{Wish, order};
use super::probe;
use super::renewal::Window;
use super::site::Site;
use crate::clock::Clock;
use crate::hostname::Hostname;
use crate::wire::alpn;

/// Where authorities come to look (RFC 8737, 3).
pub const VALIDATION_PORT: u16 = 443;
/// The most days before its end at which a user may have a certificate renewed, ten years: none lives longer.
pub const MAX_RENEW_DAYS: i64 = 3650;

/// Orders for one name that may be begun within an hour without an end: whoever is killed in one begins
/// another at the next start.
const MAX_UNFINISHED: u32 = 3;
/// The hour.
const UNFINISHED_COUNT: Duration = Duration::from_secs(60 * 60);

/// Until when nobody may be asked for a name, and since how many failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Since when. One that begins in the future was made by a clock that went wrong.
    pub since: SystemTime,
    /// Until when.
    pub until: SystemTime,
    /// So many in a row.
    pub failures: u32,
    /// The last one, for people.
    pub why: String,
}

/// Whoever issues certificates.
pub trait Ca: Send + Sync {
    /// Orders what is wished; `site` shows the answer. Dropping the future withdraws that. The authority is
    /// not asked more than three times in an hour for a name whose orders come to no end.
    fn order<S: Site>(
        &self,
        wish: Wish<'_>,
        site: &S,
    ) -> impl Future<Output = Result<Chain, Failure>> + Send;

    /// When it wants this certificate to be renewed, if it says so, and when to ask again.
    fn window(
        &self,
        chain: &Chain,
    ) -> impl Future<Output = Result<Option<(Window, Duration)>, Failure>> + Send;

    /// Tells the user what only the authority knows, once there is a first certificate for `host`.
    fn has_issued(&self, host: &Hostname) -> impl Future<Output = ()> + Send;

    /// Until when it may not be asked for `host`, remembered across starts.
    fn wait(&self, host: &Hostname) -> impl Future<Output = Result<Option<Wait>, Failure>> + Send;

    /// Remembers until when it may not be asked for `host`, or that it may.
    fn remember(
        &self,
        host: &Hostname,
        wait: Option<Wait>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// One that speaks ACME.
#[derive(Clone, Debug)]
pub struct Acme {
    /// Which.
    pub authority: Authority,
    /// Where our account there is kept.
    pub credentials: CredentialsFile,
    /// The port at which it comes to look, as it is seen from outside: 443, but for private ones.
    pub validation_port: u16,
    /// Where the date comes from.
    pub clock: Clock,
}

impl Acme {
    fn client(&self) -> Result<CaClient, Failure> {
        let client = CaClient::new(&self.authority, &self.clock);
        client.map_err(|error| Failure::Certificate(error.into()))
    }

    /// Remembers that an order is begun, before the authority hears of it.
    async fn begin(&self, host: &Hostname) -> Result<(), Failure> {
        let (directory, host) = (self.authority.directory.clone(), host.clone());
        let now = self.clock.since_epoch().as_secs();
        let begun = self.credentials.update(move |stored| {
            let known = stored.wait(&directory, &host).cloned();
            let mut wait = known.unwrap_or_else(|| StoredWait::new(&directory, &host));
            let is_recent = wait.since <= now && now - wait.since <= UNFINISHED_COUNT.as_secs();
            if wait.unfinished == 0 || !is_recent {
                (wait.since, wait.unfinished) = (now, 0);
            }
            wait.unfinished += 1;
            let unfinished = wait.unfinished;
            stored.put_wait(&directory, &host, Some(wait));
            unfinished
        });
        match begun.await? {
            unfinished if unfinished > MAX_UNFINISHED => Err(Failure::BrokenOff(MAX_UNFINISHED)),
            _ => Ok(()),
        }
    }

    /// Comes from outside, as the authority would: an order that is doomed is never sent.
    ///
    /// A network that does not lead to its own public address looks from within as one that is broken: where
    /// nothing at all comes back, the authority may try.
    async fn try_out<S: Site>(&self, host: &Hostname, site: &S) -> Result<(), Failure> {
        let trial = Answer::trial(host, &self.clock)?;
        let _presented = site.present(trial.clone()).await?;
        let (dial, port) = (&*self.authority.dial, self.validation_port);
        match probe::shown(dial, host, port, &[alpn::ACME_TLS]).await {
            Ok(shown) if shown == *trial.certificate() => Ok(()),
            Ok(_) => Err(Failure::Doomed(format!(
                "{host}:{port} is answered by somebody else; the name must lead to this relay"
            ))),
            Err(not_shown) if not_shown.may_be_ours() => {
                info!("{not_shown}; the certificate authority may do better");
                Ok(())
            }
            Err(not_shown) => Err(Failure::Doomed(not_shown.to_string())),
        }
    }
}

impl Ca for Acme {
    async fn order<S: Site>(&self, wish: Wish<'_>, site: &S) -> Result<Chain, Failure> {
        self.try_out(wish.host, site).await?;
        let client = self.client()?;
        let account = account(&self.authority, &self.credentials, &client).await?;
        let profile = self.authority.profile.as_deref();
        self.begin(wish.host).await?;
        let ordered = order(&account, (wish, profile), site, &client, &self.clock).await;
        if let Err(Failure::UnknownAccount) = &ordered {
            forget(&self.authority.directory, &self.credentials).await?;
        }
        ordered
    }

    async fn window(&self, chain: &Chain) -> Result<Option<(Window, Duration)>, Failure> {
        let leaf = chain.certified.cert.first();
        let Some(id) = leaf.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) else {
            return Ok(None);
        };
        let client = self.client()?;
        let account = known(&self.authority, &self.credentials, &client).await?;
        // The question needs none, but the library does.
        let Some(account) = account else {
            return Ok(None);
        };
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let (start, end) = (window.start.into(), window.end.into());
                Ok(Some((Window { start, end }, again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(Failure::before_order(error, client.pause())),
        }
    }

    async fn has_issued(&self, host: &Hostname) {
        let directory = &self.authority.directory;
        let (Ok(client), Ok(stored)) = (self.client(), self.credentials.load().await) else {
            return;
        };
        let account = stored
            .account(directory)
            .and_then(|account| account.id.as_ref());
        if let Some(account) = account {
            let identity = client.caa_identity(directory.as_str()).await;
            let identity = identity.as_deref().unwrap_or(caa::UNTOLD);
            let record = caa::record(host, identity, account);
            info!(
                "a DNS record that lets nobody but us have such certificates; the name then needs its own \
                 address records too: {record}"
            );
        }
    }

    async fn wait(&self, host: &Hostname) -> Result<Option<Wait>, Failure> {
        let stored = self.credentials.load().await?;
        let wait = stored.wait(&self.authority.directory, host);
        Ok(wait.map(|wait| Wait {
            since: time(wait.since),
            until: time(wait.until),
            failures: wait.failures,
            why: wait.why.clone(),
        }))
    }

    async fn remember(&self, host: &Hostname, wait: Option<Wait>) -> Result<(), Failure> {
        let (directory, host) = (self.authority.directory.clone(), host.clone());
        let wait = wait.map(|wait| StoredWait {
            since: seconds(wait.since),
            until: seconds(wait.until),
            failures: wait.failures,
            why: wait.why,
            ..StoredWait::new(&directory, &host)
        });
        let remembering = self.credentials.update(move |stored| {
            stored.put_wait(&directory, &host, wait);
        });
        remembering.await
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}

/// So many seconds since 1970, or as many as there are.
fn time(seconds: u64) -> SystemTime {
    let since_epoch = Duration::from_secs(seconds);
    let time = SystemTime::UNIX_EPOCH.checked_add(since_epoch);
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use tokio::time::Instant;

    use super::*;
    use crate::acme::authority::DirectoryUrl;
    use crate::acme::dial::Direct;

    fn acme(path: std::path::PathBuf) -> Acme {
        let begun = Instant::now();
        let clock = Clock::from_fn(move || time(1_790_000_000) + begun.elapsed());
        Acme {
            authority: Authority {
                directory: DirectoryUrl::lets_encrypt(),
                email: None,
                roots: Arc::new(RootCertStore::empty()),
                external_account: None,
                profile: None,
                dial: Arc::new(Direct),
            },
            credentials: CredentialsFile::new(path),
            validation_port: VALIDATION_PORT,
            clock,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_killed_in_every_order_begins_three_in_an_hour_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = acme(folder.path().join("creds.json"));
        let host = "a.example".parse().expect("a name");
        for _ in 0..2 {
            for _ in 0..MAX_UNFINISHED {
                acme.begin(&host).await.expect("may begin");
            }
            let refused = acme.begin(&host).await.expect_err("too many");
            assert!(matches!(refused, Failure::BrokenOff(3)), "{refused}");
            tokio::time::advance(UNFINISHED_COUNT + Duration::from_secs(1)).await;
        }
        acme.begin(&host).await.expect("may begin");
        acme.remember(&host, None).await.expect("stores");
        for _ in 0..MAX_UNFINISHED {
            acme.begin(&host)
                .await
                .expect("one that ended does not count");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_remembered_while_orders_begin() {
        let folder = tempfile::tempdir().expect("a folder");
        let acme = acme(folder.path().join("creds.json"));
        let host = "a.example".parse().expect("a name");
        let now = acme.clock.now();
        let wait = Wait {
            since: now,
            until: now + Duration::from_secs(7200),
            failures: 2,
            why: "no".to_owned(),
        };
        acme.remember(&host, Some(wait.clone()))
            .await
            .expect("stores");
        assert_eq!(acme.wait(&host).await.expect("loads"), Some(wait));
        acme.begin(&host).await.expect("may begin");
        let wait = acme.wait(&host).await.expect("loads").expect("is there");
        assert_eq!(wait.failures, 2);
    }
}
