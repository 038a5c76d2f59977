//! One public identity of the agent: a key, the id that follows from it, certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tunnel_common::cert_store::CertStore;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{ClientId, Label};
use tunnel_common::key;
use tunnel_common::proof::{CanNotSign, Exporter};
use tunnel_common::tls::{self, CertificateError};
use tunnel_common::wire::frame::{EndpointKind, EndpointRef, Proof, Wanted};

use crate::answers::Answers;
use crate::config::EndpointConfig;
use crate::local::dial::LocalDialler;
use crate::served::{Served, ServedByLink};
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
    key: Arc<KeyPair>,
    claim: Option<Vec<u8>>,
    /// At which names visitors come, by link.
    served: watch::Sender<ServedByLink>,
    /// What visitors are shown.
    certificates: CertStore,
    /// Whether the user has brought the certificate: then no other is made.
    is_brought: AtomicBool,
    visitor_tls: Arc<ServerConfig>,
    /// Whether certificates are ordered for it here, if a relay lets this process do so.
    orders: AtomicBool,
    answers: Answers,
}

impl Endpoint {
    /// Takes the key, and a certificate that it signs itself.
    pub(crate) fn new(config: EndpointConfig, clock: &Clock) -> Result<Self, CertificateError> {
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
        let certificates = CertStore::new(Arc::new(tls::self_signed(&key, &[])?));
        Ok(Self {
            name,
            id: key::fingerprint(&key),
            local: LocalDialler::new(local, proxy_protocol, clock),
            local_down: AtomicBool::new(false),
            tls: mode,
            suffix,
            key: Arc::new(key),
            claim,
            served: watch::Sender::default(),
            visitor_tls: visitor_tls(certificates.clone(), alpn, clock)?,
            certificates,
            is_brought: AtomicBool::new(false),
            orders: AtomicBool::new(false),
            answers: Answers::default(),
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
            orders: self.orders.load(Ordering::Relaxed),
        })
    }

    /// The certificate that proves the identity to a relay.
    pub(crate) fn identity(&self) -> Result<CertifiedKey, CertificateError> {
        tls::self_signed_with_claim(&self.key, self.claim.as_deref())
    }

    /// The TLS that visitors get; `None` where they get the local service's.
    pub(crate) fn visitor_tls(&self) -> Option<Arc<ServerConfig>> {
        match self.tls {
            TlsMode::Terminate => Some(self.visitor_tls.clone()),
            TlsMode::Passthrough => None,
        }
    }

    /// The key itself.
    pub(crate) fn key(&self) -> &Arc<KeyPair> {
        &self.key
    }

    /// Whether visitors' TLS ends here.
    pub(crate) fn ends_tls(&self) -> bool {
        self.tls == TlsMode::Terminate
    }

    /// What visitors are shown, from the next handshake on.
    pub(crate) fn certificates(&self) -> &CertStore {
        &self.certificates
    }

    /// What certificate authorities are shown who come to look.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Certificates are ordered for it here: relays are told so from the next wish on.
    pub(crate) fn will_order(&self) {
        self.orders.store(true, Ordering::Relaxed);
    }

    /// At which names visitors come, by link, now and at each change.
    pub(crate) fn served(&self) -> watch::Receiver<ServedByLink> {
        self.served.subscribe()
    }

    /// Shows visitors who ask for no name with a certificate of its own this one, which the user has brought.
    pub(crate) fn show_brought(&self, certificate: Arc<CertifiedKey>) {
        self.is_brought.store(true, Ordering::Release);
        self.certificates.set_default(certificate);
    }

    /// Makes the self-signed certificate fit the names at which visitors will come through this link,
    /// and those of the other links, also where they serve no more: their visitors may still be
    /// here. One that fits stays: several tunnels say the same, and who has accepted it should
    /// not be asked again.
    pub(crate) fn serve_at(&self, link: usize, served: Served) -> Result<(), CertificateError> {
        let mut made = Ok(());
        // Within the change: of two links that come together the later has the names of both.
        self.served.send_if_modified(|by_link| {
            let before = by_link.hosts();
            let is_news = by_link.put(link, served);
            let hosts = by_link.hosts();
            if hosts != before && self.ends_tls() && !self.is_brought.load(Ordering::Acquire) {
                made = self.self_sign(&hosts);
            }
            is_news
        });
        made
    }

    /// No tunnel of this link serves any more.
    pub(crate) fn is_cut_off(&self, link: usize) {
        self.served
            .send_if_modified(|by_link| by_link.is_cut_off(link));
    }

    fn self_sign(&self, hosts: &[Hostname]) -> Result<(), CertificateError> {
        let names: Vec<_> = hosts.iter().map(Hostname::to_string).collect();
        let certified = tls::self_signed(&self.key, &names)?;
        self.certificates.set_default(Arc::new(certified));
        Ok(())
    }
}

/// TLS 1.2 and 1.3, without early data: a visit may move to another tunnel while its hello is held.
fn visitor_tls(
    certificates: CertStore,
    alpn: Vec<Vec<u8>>,
    clock: &Clock,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let mut tls = ServerConfig::builder_with_details(tls::provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    tls.alpn_protocols = alpn;
    // Who comes again need not be remembered: his ticket says all, and no number of others pushes him out.
    tls.ticketer = Ticketer::new()?;
    Ok(Arc::new(tls))
}
