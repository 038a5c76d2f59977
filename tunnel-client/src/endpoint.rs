//! One public identity of the agent: a key, the id that follows from it, a certificate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{ClientId, Label};
use tunnel_common::key;
use tunnel_common::proof::{CanNotSign, Exporter};
use tunnel_common::tls::{self, CertificateError};
use tunnel_common::wire::frame::{EndpointKind, EndpointRef, Proof, Wanted};

use crate::config::EndpointConfig;
use crate::local::dial::LocalDialler;
use crate::tls_mode::TlsMode;

/// Why an endpoint's key could not be proved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// The certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The key does not sign.
    #[error(transparent)]
    Sign(#[from] CanNotSign),
}

/// An endpoint, ready to end visitors' TLS.
#[derive(Debug)]
pub struct Endpoint {
    name: EndpointRef,
    id: ClientId,
    local: LocalDialler,
    local_down: AtomicBool,
    tls: TlsMode,
    suffix: Option<Hostname>,
    key: KeyPair,
    claim: Option<Vec<u8>>,
    alpn: Vec<Vec<u8>>,
    clock: Clock,
    /// At which names visitors come, by link.
    hosts: Mutex<BTreeMap<usize, Vec<String>>>,
    shown: ArcSwap<Shown>,
}

/// What visitors are shown.
#[derive(Debug)]
struct Shown {
    /// The names in the certificate.
    hosts: Vec<String>,
    tls: Arc<ServerConfig>,
}

impl Endpoint {
    /// Takes the key, and a certificate that it signs itself.
    pub(crate) fn new(config: EndpointConfig, clock: Clock) -> Result<Self, CertificateError> {
        let EndpointConfig {
            name,
            key,
            claim,
            local,
            tls: mode,
            proxy_protocol,
            alpn,
            suffix,
        } = config;
        let local = LocalDialler::new(local, proxy_protocol, &clock);
        let shown = ArcSwap::from_pointee(Shown {
            hosts: vec![],
            tls: visitor_tls(tls::self_signed(&key, &[])?, &alpn, &clock)?,
        });
        let id = key::fingerprint(&key);
        Ok(Self {
            name,
            id,
            local,
            local_down: AtomicBool::new(false),
            tls: mode,
            suffix,
            key,
            claim,
            alpn,
            clock,
            hosts: Mutex::default(),
            shown,
        })
    }

    /// The agent's own name of it.
    pub fn name(&self) -> &EndpointRef {
        &self.name
    }

    /// Whose it is.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// The id that visitors see in the URL.
    pub fn label(&self) -> Label {
        self.id.label()
    }

    /// Where visits go.
    pub(crate) fn local(&self) -> &LocalDialler {
        &self.local
    }

    /// Notes whether the last dial of the local service failed; gives what the one before did.
    pub(crate) fn local_is_down(&self, is_down: bool) -> bool {
        self.local_down.swap(is_down, Ordering::Relaxed)
    }

    /// What the relay is asked for, over the connection of `exporter`, whose handshake proved the key
    /// of the endpoint named `proven`.
    pub(crate) fn wanted(
        &self,
        proven: &EndpointRef,
        exporter: &Exporter,
    ) -> Result<Wanted, ProveError> {
        let host = self
            .suffix
            .as_ref()
            .map(|suffix| format!("{}.{suffix}", self.label()));
        let proof = if self.name == *proven {
            None
        } else {
            Some(Proof::new(&self.identity()?, exporter)?)
        };
        Ok(Wanted {
            endpoint: self.name.clone(),
            kind: EndpointKind::Https,
            host,
            port: None,
            proof,
        })
    }

    /// The certificate that proves the identity to a relay.
    pub(crate) fn identity(&self) -> Result<CertifiedKey, CertificateError> {
        tls::self_signed_with_claim(&self.key, self.claim.as_deref())
    }

    /// The TLS that the next visitor gets; `None` where he gets the local service's.
    pub(crate) fn visitor_tls(&self) -> Option<Arc<ServerConfig>> {
        match self.tls {
            TlsMode::Terminate => Some(self.shown.load().tls.clone()),
            TlsMode::Passthrough => None,
        }
    }

    /// Makes the self-signed certificate fit the names at which visitors will come through this link,
    /// and those of the other links, also where they serve no more: their visitors may still be
    /// here. One that fits stays: several tunnels say the same, and who has accepted it should
    /// not be asked again.
    pub(crate) fn serve_at(&self, link: usize, hosts: &[String]) -> Result<(), CertificateError> {
        if self.tls == TlsMode::Passthrough {
            return Ok(());
        }
        // Held to the end: of two links that come together the later has the names of both.
        let mut by_link = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        by_link.insert(link, hosts.to_vec());
        let hosts = union(by_link.values());
        if self.shown.load().hosts == hosts {
            return Ok(());
        }
        let certified = tls::self_signed(&self.key, &hosts)?;
        self.shown.store(Arc::new(Shown {
            hosts,
            tls: visitor_tls(certified, &self.alpn, &self.clock)?,
        }));
        Ok(())
    }
}

/// Each name once, in the order of the links.
fn union<'a>(by_link: impl Iterator<Item = &'a Vec<String>>) -> Vec<String> {
    let mut union = vec![];
    for host in by_link.flatten() {
        if !union.contains(host) {
            union.push(host.clone());
        }
    }
    union
}

/// TLS 1.2 and 1.3, without early data: a visit may move to another tunnel while its hello is held.
fn visitor_tls(
    certified: CertifiedKey,
    alpn: &[Vec<u8>],
    clock: &Clock,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut tls = ServerConfig::builder_with_details(tls::provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    tls.alpn_protocols = alpn.to_vec();
    Ok(Arc::new(tls))
}
