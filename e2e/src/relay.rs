//! A relay in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tunnel_common::acme::state::CertificateState;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls;
use tunnel_server::cert;
use tunnel_server::config::{Config, Suffixes};
use tunnel_server::server::{ApiSocketLost, Server};

use crate::poll::{eventually, soon};

/// A relay that serves. Dropping it ends it without a goodbye.
#[derive(Debug)]
pub struct Relay {
    /// Where agents dial.
    pub api: SocketAddr,
    /// Where visitors come.
    pub public: SocketAddr,
    /// Where certificate authorities come to look, if it was asked for a port for them.
    pub alpn: Option<SocketAddr>,
    /// Where it tells how it is, if it was asked to.
    pub admin: Option<SocketAddr>,
    /// By which agents know it.
    pub fingerprint: KeyFingerprint,
    /// How it stands with its certificate.
    pub certificate: watch::Receiver<CertificateState>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ApiSocketLost>>,
}

/// A relay in development mode: any suffix.
pub async fn relay() -> Relay {
    relay_with(|_| {}).await
}

/// A relay that serves these domains only.
pub async fn relay_for(suffixes: &[&str]) -> Relay {
    let suffixes = suffixes
        .iter()
        .map(|suffix| suffix.parse().expect("a host name"))
        .collect();
    relay_with(|config| config.suffixes = Suffixes::These(suffixes)).await
}

/// A new key for a relay, with its certificate.
pub fn relay_identity() -> Arc<CertifiedKey> {
    let key = tls::generate_key().expect("a key");
    cert::self_signed(&key, &["localhost".to_owned()]).expect("a certificate")
}

/// A relay with this identity at this API port, where another one was before.
pub async fn relay_again(identity: Arc<CertifiedKey>, api_port: u16) -> Relay {
    relay_with(|config| {
        config.identity = identity.into();
        config.api_port = api_port;
    })
    .await
}

/// A relay with a changed configuration.
pub async fn relay_with(change: impl FnOnce(&mut Config)) -> Relay {
    let mut config = Config {
        bind_addr: Ipv4Addr::LOCALHOST.into(),
        api_port: 0,
        pub_port: 0,
        alpn_port: None,
        max_visits: 10_000,
        ..Config::development(relay_identity())
    };
    change(&mut config);
    // An earlier relay may hold its ports for a moment more.
    let mut bound = None;
    let binds = || {
        bound = Server::bind(&config).ok();
        bound.is_some()
    };
    eventually("the relay binds", binds).await;
    let server = bound.expect("binds");
    let (api, public) = (server.addresses().api, server.addresses().public[0]);
    let alpn = server.addresses().public.get(1).copied();
    let admin = server.addresses().admin;
    let certificate = server.certificate();
    let (fingerprint, shutdown) = (server.fingerprint(), CancellationToken::new());
    let running = tokio::spawn(server.run(shutdown.clone()));
    Relay {
        api,
        public,
        alpn,
        admin,
        fingerprint,
        certificate,
        shutdown,
        running,
    }
}

impl Relay {
    /// Waits until an authority vouches for it.
    pub async fn is_certified(&self) {
        let mut certificate = self.certificate.clone();
        let is = |state: &CertificateState| matches!(state, CertificateState::Certified { .. });
        let certified = soon("the relay is certified", certificate.wait_for(is)).await;
        certified.expect("the relay runs");
    }

    /// Asks it to end, and waits for nothing.
    pub fn drains(&self) {
        self.shutdown.cancel();
    }

    /// Whether it has not ended yet.
    pub fn runs(&self) -> bool {
        !self.running.is_finished()
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) {
        self.drains();
        (&mut self.running)
            .await
            .expect("the relay ends without a panic")
            .expect("its socket lives");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.running.abort();
    }
}
