//! An agent in this process.

use std::fmt::Display;
use std::net::SocketAddr;

use rcgen::KeyPair;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tunnel_client::client::{Client, RefusedByRelay};
use tunnel_client::config::{Config, EndpointConfig, RelayConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::status::{Published, Status};
use tunnel_common::acme::state::CertificateState;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls;

use crate::poll::soon;
use crate::relay::Relay;
use crate::transport::Over;

/// An agent that runs. Dropping it ends it as a crash would: without a goodbye.
#[derive(Debug)]
pub struct Agent {
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RefusedByRelay>>,
}

/// A new identity.
pub fn new_key() -> KeyPair {
    tls::generate_key().expect("a key")
}

/// The same identity once more.
pub fn same_key(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).expect("a key")
}

/// The configuration of an agent that publishes `origin` through `relay`.
pub fn config(over: Over, relay: &Relay, key: KeyPair, origin: impl Display) -> Config {
    config_at(over, relay.api, relay.fingerprint, key, origin)
}

/// The same for a relay that is anywhere: its API port and its key.
pub fn config_at(
    over: Over,
    api: SocketAddr,
    fingerprint: KeyFingerprint,
    key: KeyPair,
    origin: impl Display,
) -> Config {
    let local = origin.to_string().parse().expect("a local service");
    let relays = vec![at(api, fingerprint)];
    let mut config = Config::through(relays, EndpointConfig::new(key, local));
    over.set(&mut config);
    config
}

/// The same for several relays at once.
pub fn config_of(over: Over, relays: &[&Relay], key: KeyPair, origin: impl Display) -> Config {
    let (first, others) = relays.split_first().expect("a relay");
    let mut config = config(over, first, key, origin);
    let others = others.iter().map(|relay| at(relay.api, relay.fingerprint));
    config.relays.extend(others);
    config
}

/// How an agent finds the relay at `api` with this key.
pub fn at(api: impl Display, fingerprint: KeyFingerprint) -> RelayConfig {
    RelayConfig {
        trust: RelayTrust::Pinned(fingerprint),
        ..RelayConfig::new(api.to_string().parse().expect("an address"))
    }
}

/// Publishes `origin` through `relay` under a new identity, and waits until it serves.
pub async fn publish(over: Over, relay: &Relay, origin: SocketAddr) -> Agent {
    publish_as(over, relay, new_key(), origin).await
}

/// Publishes `origin` under this identity, and waits until it serves.
pub async fn publish_as(over: Over, relay: &Relay, key: KeyPair, origin: SocketAddr) -> Agent {
    let agent = start(config(over, relay, key, origin));
    agent.serves().await;
    agent
}

/// Starts an agent, and waits for nothing.
pub fn start(config: Config) -> Agent {
    let client = Client::new(config).expect("a client");
    let (status, shutdown) = (client.status(), CancellationToken::new());
    let running = tokio::spawn(client.run(shutdown.clone()));
    Agent {
        status,
        shutdown,
        running,
    }
}

impl Agent {
    /// Waits until visitors can come, and says where: the host names.
    pub async fn serves(&self) -> Vec<String> {
        let mut status = self.status.clone();
        let serving = soon(
            "the agent serves",
            status.wait_for(|s| *s != Status::Connecting),
        )
        .await;
        match &*serving.expect("the agent runs") {
            Status::Serving(published) => published[0].urls.iter().map(|url| host(url)).collect(),
            Status::Connecting => unreachable!("waited for"),
        }
    }

    /// Waits until so many endpoints are published.
    pub async fn serves_endpoints(&self, count: usize) {
        let mut status = self.status.clone();
        let are = |s: &Status| matches!(s, Status::Serving(published) if published.len() == count);
        soon("the endpoints are published", status.wait_for(are))
            .await
            .expect("the agent runs");
    }

    /// Waits until visitors reach the first endpoint at so many URLs.
    pub async fn serves_at(&self, urls: usize) -> Published {
        let are = |first: &Published| first.urls.len() == urls;
        self.first_is("the URLs are so many", are).await
    }

    /// Waits until the first endpoint is published so.
    pub async fn first_is(
        &self,
        what: &str,
        mut is_so: impl FnMut(&Published) -> bool,
    ) -> Published {
        let mut status = self.status.clone();
        let is = |s: &Status| first(s).is_some_and(&mut is_so);
        let so = soon(what, status.wait_for(is)).await;
        let so = so.expect("the agent runs");
        first(&so).expect("waited for").clone()
    }

    /// At how many URLs visitors reach the first endpoint now.
    pub fn urls(&self) -> usize {
        first(&self.status.borrow()).map_or(0, |first| first.urls.len())
    }

    /// Waits until the agent knows that it has no tunnel.
    pub async fn is_cut_off(&self) {
        let mut status = self.status.clone();
        let cut = status.wait_for(|s| *s == Status::Connecting);
        soon("the agent knows that it is cut off", cut)
            .await
            .expect("the agent runs");
    }

    /// Waits until the certificate of its first host name stands so, and says how.
    pub async fn certificate(
        &self,
        what: &str,
        mut is_so: impl FnMut(&CertificateState) -> bool,
    ) -> CertificateState {
        let is = |first: &Published| first.certificates.values().next().is_some_and(&mut is_so);
        let so = self.first_is(what, is).await;
        so.certificates.into_values().next().expect("waited for")
    }

    /// The first host name at which it serves.
    pub async fn host(&self) -> String {
        self.serves().await.swap_remove(0)
    }

    /// How it stands, now and at each change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Asks it to end, and waits for nothing.
    pub fn leaves(&self) {
        self.shutdown.cancel();
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) {
        self.leaves();
        let ended = soon("the agent ends", &mut self.running).await;
        ended.expect("no panic").expect("no refusal");
    }

    /// Waits until the relay's refusal ends it, and gives the reason.
    pub async fn refused(mut self) -> RefusedByRelay {
        let ended = soon("the agent is refused", &mut self.running).await;
        ended.expect("no panic").expect_err("refused")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn first(status: &Status) -> Option<&Published> {
    match status {
        Status::Serving(published) => published.first(),
        Status::Connecting => None,
    }
}

/// The host in a URL.
pub fn host(url: &str) -> String {
    let rest = url.trim_start_matches("https://");
    rest.split(':').next().expect("a host").to_owned()
}
