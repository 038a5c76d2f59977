//! A certificate authority, as whoever keeps names certified sees it.

use std::time::{Duration, SystemTime};

use instant_acme::{CertificateIdentifier, Error};
use tracing::info;

use super::account::{account, forget};
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

/// Until when nobody may be asked for a name, and since how many failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Until when.
    pub until: SystemTime,
    /// So many in a row.
    pub failures: u32,
    /// The last one, for people.
    pub why: String,
}

/// Whoever issues certificates.
pub trait Ca: Send + Sync {
    /// Orders what is wished; `site` shows the answer. Dropping the future withdraws that.
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
        let ordered = order(&account, (wish, profile), site, &client, &self.clock).await;
        let directory = &self.authority.directory;
        match &ordered {
            Ok(_) if wish.replaces.is_none() => {
                let identity = client.caa_identity(directory.as_str()).await;
                let identity = identity.as_deref().unwrap_or(caa::UNTOLD);
                let record = caa::record(wish.host, identity, account.id());
                info!("a DNS record that lets nobody but us have such certificates: {record}");
            }
            Err(Failure::UnknownAccount) => forget(directory, &self.credentials).await?,
            _ => {}
        }
        ordered
    }

    async fn window(&self, chain: &Chain) -> Result<Option<(Window, Duration)>, Failure> {
        let leaf = chain.certified.cert.first();
        let Some(id) = leaf.and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) else {
            return Ok(None);
        };
        let client = self.client()?;
        let account = account(&self.authority, &self.credentials, &client).await?;
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let (start, end) = (window.start.into(), window.end.into());
                Ok(Some((Window { start, end }, again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(Failure::of(error, client.pause())),
        }
    }

    async fn wait(&self, host: &Hostname) -> Result<Option<Wait>, Failure> {
        let stored = self.credentials.load().await?;
        let wait = stored.wait(&self.authority.directory, host);
        Ok(wait.map(|wait| Wait {
            until: wait.until(),
            failures: wait.failures,
            why: wait.why.clone(),
        }))
    }

    async fn remember(&self, host: &Hostname, wait: Option<Wait>) -> Result<(), Failure> {
        let directory = &self.authority.directory;
        let wait = wait.map(|wait| {
            let why = (wait.failures, wait.why);
            StoredWait::new(directory, host, wait.until, why)
        });
        self.credentials.remember(directory, host, wait).await
    }
}
