//! One public identity of the agent: a key, the id that follows from it, a certificate.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{ClientId, Label};
use tunnel_common::key;
use tunnel_common::tls::{self, CertificateError};
use tunnel_common::wire::frame::{EndpointKind, EndpointRef, Wanted};

use crate::config::EndpointConfig;
use crate::local::LocalService;

/// An endpoint, ready to end visitors' TLS.
#[derive(Debug)]
pub struct Endpoint {
    name: EndpointRef,
    id: ClientId,
    local: LocalService,
    suffix: Option<Hostname>,
    key: KeyPair,
    claim: Option<Vec<u8>>,
    alpn: Vec<Vec<u8>>,
    clock: Clock,
    visitor_tls: ArcSwap<ServerConfig>,
}

impl Endpoint {
    /// Takes the key, and a certificate that it signs itself.
    pub(crate) fn new(config: EndpointConfig, clock: Clock) -> Result<Self, CertificateError> {
        let EndpointConfig {
            name,
            key,
            claim,
            local,
            alpn,
            suffix,
        } = config;
        let certified = tls::self_signed(&key, &[])?;
        let visitor_tls = ArcSwap::from(visitor_tls(certified, &alpn, &clock)?);
        let id = key::fingerprint(&key);
        Ok(Self {
            name,
            id,
            local,
            suffix,
            key,
            claim,
            alpn,
            clock,
            visitor_tls,
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
    pub fn local(&self) -> &LocalService {
        &self.local
    }

    /// What the relay is asked for.
    pub(crate) fn wanted(&self) -> Wanted {
        let host = self
            .suffix
            .as_ref()
            .map(|suffix| format!("{}.{suffix}", self.label()));
        Wanted {
            endpoint: self.name.clone(),
            kind: EndpointKind::Https,
            host,
            port: None,
            proof: None,
        }
    }

    /// The certificate that proves the identity to a relay.
    pub(crate) fn identity(&self) -> Result<CertifiedKey, CertificateError> {
        tls::self_signed_with_claim(&self.key, self.claim.as_deref())
    }

    /// The TLS that the next visitor gets.
    pub(crate) fn visitor_tls(&self) -> Arc<ServerConfig> {
        self.visitor_tls.load_full()
    }

    /// Makes the self-signed certificate fit the names at which visitors will come.
    pub(crate) fn serve_at(&self, hosts: &[String]) -> Result<(), CertificateError> {
        let certified = tls::self_signed(&self.key, hosts)?;
        self.visitor_tls
            .store(visitor_tls(certified, &self.alpn, &self.clock)?);
        Ok(())
    }
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
