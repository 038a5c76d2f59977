//! One attempt to reach the relay: choose the rule of trust, resolve, try the ways in turn, and on
//! each race the addresses.
//!
//! 1. QUIC at the relay's port.
//! 2. HTTP/2 over TCP at the same port, where UDP does not pass.
//! 3. HTTP/2 at port 443, where nothing else passes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::TransportConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::time::timeout;
use tracing::{debug, warn};
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls;
use tunnel_common::wire::alpn;

use super::connection::Connection;
use super::dial_error::{DialError, TlsError};
use super::known_relays::KnownRelays;
use super::relay_trust::{RelayTrust, Rule, Source};
use super::verifier::{WrongKey, verifier};
use super::{h2, quic};
use crate::config::Timeouts;
use crate::race::race;
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;

/// Dials one relay, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct Dialler {
    relay: RelayAddr,
    last_port: Option<u16>,
    tls: TlsSettings,
    transport: Arc<TransportConfig>,
    timeouts: Timeouts,
    resolver: Arc<dyn Resolve>,
    /// The key that was believed on first sight and could not be recorded.
    believed: Mutex<Option<KeyFingerprint>>,
}

/// What TLS needs to know to dial.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    pub(crate) identity: CertifiedKey,
    pub(crate) trust: RelayTrust,
    pub(crate) known_relays: Option<KnownRelays>,
    pub(crate) clock: Clock,
}

impl Dialler {
    /// Prepares to dial `relay`, and as a last resort another port of it.
    pub(crate) fn new(
        relay: RelayAddr,
        last_port: Option<u16>,
        tls: TlsSettings,
        transport: TransportConfig,
        timeouts: Timeouts,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        if let RelayTrust::PrivateCa(authorities) = &tls.trust {
            verifier(&Rule::Authority(authorities.clone()), tls::provider())?;
        }
        Ok(Self {
            last_port: last_port.filter(|port| *port != relay.port()),
            relay,
            tls,
            transport: Arc::new(transport),
            timeouts,
            resolver,
            believed: Mutex::default(),
        })
    }

    /// The relay's address as the user gave it.
    pub(crate) fn relay(&self) -> &RelayAddr {
        &self.relay
    }

    /// Connects to the first of the relay's addresses that answers and is trusted. Chooses the rule
    /// of trust and resolves anew each time. Dropping the future gives up all attempts.
    pub(crate) async fn dial(&self) -> Result<Connection, DialError> {
        let believed = *self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.tls.known_relays.as_ref();
        let rule = self.tls.trust.choose(&self.relay, known, believed)?;
        let connection = self.try_ways(&rule).await?;
        if let Rule::FirstUse(first) = &rule
            && let Some(key) = first.get()
        {
            self.believe(*key)?;
        }
        Ok(connection)
    }

    async fn try_ways(&self, rule: &Rule) -> Result<Connection, DialError> {
        let addresses = self.resolve().await?;
        let failure = match self.over_quic(&addresses, rule).await {
            Err(error) if error.may_be_passed_by() => error,
            outcome => return outcome,
        };
        debug!("{failure}; trying TCP");
        let mut failures = vec![failure.to_string()];
        let tls = Arc::new(self.tls.client(rule, alpn::H2)?);
        let last = |address: &SocketAddr| Some(SocketAddr::new(address.ip(), self.last_port?));
        let last = addresses.iter().filter_map(last).collect();
        for ways in [addresses.clone(), last] {
            match self.over_tcp(&ways, &tls).await {
                Ok(connection) => return Ok(connection),
                Err(None) => {}
                Err(Some(error)) => failures.push(error.to_string()),
            }
        }
        Err(DialError::NoWay(failures.join("; ")))
    }

    async fn over_quic(
        &self,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Connection, DialError> {
        let tls = self.tls.client(rule, alpn::QUIC)?;
        let config = quic::config(tls, self.transport.clone())?;
        let limit = self.timeouts.quic.handshake;
        let attempt = |address: &SocketAddr| {
            quic::connect(*address, self.relay.host(), config.clone(), limit)
        };
        let none = DialError::Resolve(io::ErrorKind::NotFound.into());
        race(
            addresses.iter().map(attempt),
            self.timeouts.head_start,
            none,
        )
        .await
    }

    /// `None` where there is no address.
    async fn over_tcp(
        &self,
        addresses: &[SocketAddr],
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Connection, Option<DialError>> {
        let attempt = async |address: &SocketAddr| {
            let connecting = h2::connect(*address, self.relay.host(), tls.clone(), self.timeouts);
            connecting.await.map_err(Some)
        };
        race(
            addresses.iter().map(attempt),
            self.timeouts.head_start,
            None,
        )
        .await
    }

    /// Expects `key` from now on, by the file of known relays or else as long as this lives.
    fn believe(&self, key: KeyFingerprint) -> Result<(), DialError> {
        let advice = "compare it with the KEY that the relay printed at its start, or give \
                      --server-fingerprint";
        let recorded = self.tls.known_relays.as_ref().map(|file| {
            let recorded = file.record(&self.relay, key);
            (file.path().display(), recorded)
        });
        match recorded {
            Some((path, Ok(recorded))) if recorded == key => {
                warn!(
                    "the relay's key is believed on first sight and recorded in {path}: {key}; {advice}"
                );
            }
            Some((_, Ok(recorded))) => {
                let wrong = WrongKey::new(key, recorded, Source::FirstSight);
                return Err(DialError::WrongKey(Box::new(wrong)));
            }
            unrecorded => {
                if let Some((_, Err(error))) = unrecorded {
                    warn!("the relay's key can not be recorded: {error}");
                }
                warn!(
                    "the relay's key is believed on first sight until this process ends: {key}; {advice}"
                );
                *self.believed.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
            }
        }
        Ok(())
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let resolving = self.resolver.resolve(self.relay.host(), self.relay.port());
        match timeout(self.timeouts.resolve, resolving).await {
            Ok(addresses) => addresses.map_err(DialError::Resolve),
            Err(_) => Err(DialError::Resolve(io::ErrorKind::TimedOut.into())),
        }
    }
}

impl TlsSettings {
    /// TLS 1.3 with our key proved, and never resumed: each connection proves it anew.
    fn client(&self, rule: &Rule, protocol: &[u8]) -> Result<rustls::ClientConfig, TlsError> {
        let provider = tls::provider();
        let verifier = verifier(rule, provider.clone())?;
        let identity = Arc::new(SingleCertAndKey::from(self.identity.clone()));
        let clock = Arc::new(self.clock.clone());
        let mut tls = rustls::ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(identity);
        tls.alpn_protocols = vec![protocol.to_vec()];
        tls.resumption = Resumption::disabled();
        Ok(tls)
    }
}
