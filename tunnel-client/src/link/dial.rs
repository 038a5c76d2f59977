//! One attempt to reach the relay: choose the rule of trust, resolve, try the ways in turn, and on
//! each race the addresses.
//!
//! 1. QUIC at the relay's port.
//! 2. HTTP/2 over TCP at the same port, where UDP does not pass.
//! 3. HTTP/2 at port 443, where nothing else passes.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::TransportConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls;
use tunnel_common::wire::alpn;

use super::connection::Connection;
use super::dial_error::{DialError, TlsError, Weight};
use super::known_relays::{Known, KnownRelays, KnownRelaysError};
use super::relay_trust::{Believed, Expected, RelayTrust, Rule, Source};
use super::verifier::{Slots, WrongKey, verifier};
use super::{h2, quic};
use crate::config::{Timeouts, Transport};
use crate::race::race;
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;

/// Dials one relay, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct Dialler {
    relay: RelayAddr,
    last_port: Option<u16>,
    transport: Transport,
    tls: TlsSettings,
    quic: Arc<TransportConfig>,
    timeouts: Timeouts,
    resolver: Arc<dyn Resolve>,
    /// The key of the last tunnel that was believed on first sight, or recorded.
    believed: Mutex<Option<Believed>>,
}

/// The relay, and its key if it is seen for the first time.
#[derive(Debug)]
struct Reached {
    connection: Connection,
    first_seen: Option<KeyFingerprint>,
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
        transport: Transport,
        tls: TlsSettings,
        quic: TransportConfig,
        timeouts: Timeouts,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        if let RelayTrust::PrivateCa(authorities) = &tls.trust {
            let rule = Rule::Authority(authorities.clone());
            verifier(&rule, Arc::default(), tls::provider())?;
        }
        Ok(Self {
            last_port: last_port.filter(|port| *port != relay.port()),
            relay,
            transport,
            tls,
            quic: Arc::new(quic),
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
        let rule = self.choose().await?;
        let reached = self.try_ways(&rule).await?;
        match (reached.first_seen, rule) {
            (Some(key), Rule::FirstUse) => self.believe(key).await?,
            (
                _,
                Rule::Key(Expected {
                    key,
                    source: Source::File { .. },
                }),
            ) => self.remember(key, true),
            _ => {}
        }
        Ok(reached.connection)
    }

    async fn choose(&self) -> Result<Rule, DialError> {
        let (trust, relay) = (self.tls.trust.clone(), self.relay.clone());
        let known = self.tls.known_relays.clone();
        let believed = *self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let choosing = spawn_blocking(move || trust.choose(&relay, known.as_ref(), believed));
        let rule = choosing.await??;
        let by_authority = matches!(
            self.tls.trust,
            RelayTrust::PublicCa | RelayTrust::PrivateCa(_)
        );
        if let Rule::Key(Expected { source, .. }) = &rule
            && let Source::File { path, line } = source
            && by_authority
        {
            let path = path.display();
            info!("the relay is known by its key ({path}, line {line}), not by an authority");
        }
        Ok(rule)
    }

    async fn try_ways(&self, rule: &Rule) -> Result<Reached, DialError> {
        let addresses = self.resolve().await?;
        let mut failures = match self.over_quic(&addresses, rule).await {
            Err(failures) if failures.is_empty() && self.transport == Transport::OnlyH2 => failures,
            Err(failures) if failures.iter().any(DialError::may_be_passed_by) => failures,
            Err(failures) => return Err(DialError::of(failures).unwrap_or_else(no_address)),
            Ok(reached) => return Ok(reached),
        };
        let last = |address: &SocketAddr| Some(SocketAddr::new(address.ip(), self.last_port?));
        let last = addresses.iter().filter_map(last).collect();
        let mut told = vec![];
        for ways in [addresses.clone(), last] {
            if let Some(failure) = DialError::of(failures) {
                debug!("{failure}; trying TCP");
                told.push(failure);
            }
            match self.over_tcp(&ways, rule).await {
                Ok(reached) => return Ok(reached),
                Err(failed) => failures = failed,
            }
        }
        let mut texts: Vec<_> = told.iter().map(ToString::to_string).collect();
        // Another port of the relay's host may be anybody's, a web server's: who is there proves nothing.
        texts.extend(DialError::of(failures).map(|error| error.to_string()));
        match DialError::of(told) {
            Some(error) if error.weight() == Weight::Trust => Err(error),
            _ => Err(DialError::NoWay(texts.join("; "))),
        }
    }

    async fn over_quic(
        &self,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Reached, Vec<DialError>> {
        if self.transport == Transport::OnlyH2 {
            return Err(vec![]);
        }
        let limit = self.timeouts.quic.handshake;
        let attempt = async |address: &SocketAddr| {
            let slots = Arc::default();
            let tls = self.tls.client(rule, &slots, alpn::QUIC)?;
            let config = quic::config(tls, self.quic.clone())?;
            let connected = quic::connect(*address, self.relay.host(), config, limit).await;
            outcome(connected, *address, rule, &slots)
        };
        race(addresses.iter().map(attempt), self.timeouts.head_start).await
    }

    async fn over_tcp(
        &self,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Reached, Vec<DialError>> {
        let attempt = async |address: &SocketAddr| {
            let slots = Arc::default();
            let tls = Arc::new(self.tls.client(rule, &slots, alpn::H2)?);
            let connected = h2::connect(*address, self.relay.host(), tls, self.timeouts).await;
            outcome(connected, *address, rule, &slots)
        };
        race(addresses.iter().map(attempt), self.timeouts.head_start).await
    }

    /// Expects `key` from now on, by the file of known relays and as long as this lives.
    async fn believe(&self, key: KeyFingerprint) -> Result<(), DialError> {
        let advice = "compare it with the KEY that the relay printed at its start, or give \
                      --server-fingerprint";
        let recorded = self.record(key).await?;
        match &recorded {
            Some((path, Ok(known))) if known.key == key => {
                let path = path.display();
                warn!(
                    "the relay's key is believed on first sight and recorded in {path}: {key}; {advice}"
                );
            }
            Some((path, Ok(known))) => {
                let (path, line) = (path.clone(), known.line);
                let wrong = WrongKey::new(key, known.key, Source::File { path, line });
                return Err(DialError::WrongKey(Box::new(wrong)));
            }
            unrecorded => {
                if let Some((_, Err(error))) = unrecorded {
                    warn!("the relay's key can not be recorded: {error}");
                }
                warn!(
                    "the relay's key is believed on first sight until this process ends: {key}; {advice}"
                );
            }
        }
        self.remember(key, matches!(recorded, Some((_, Ok(_)))));
        Ok(())
    }

    /// Writes `key` into the file of known relays, if there is one to be.
    async fn record(&self, key: KeyFingerprint) -> Result<Option<Recorded>, DialError> {
        let Some(file) = self.tls.known_relays.clone() else {
            return Ok(None);
        };
        let (path, relay) = (file.path().to_owned(), self.relay.clone());
        let recorded = spawn_blocking(move || file.record(&relay, key)).await?;
        Ok(Some((path, recorded)))
    }

    fn remember(&self, key: KeyFingerprint, recorded: bool) {
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        *believed = Some(Believed { key, recorded });
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let resolving = self.resolver.resolve(self.relay.host(), self.relay.port());
        match timeout(self.timeouts.resolve, resolving).await {
            Ok(addresses) => addresses.map_err(DialError::Resolve),
            Err(_) => Err(DialError::Resolve(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// Where the key should be recorded, and what is there now.
type Recorded = (PathBuf, Result<Known, KnownRelaysError>);

fn no_address() -> DialError {
    DialError::Resolve(io::ErrorKind::NotFound.into())
}

/// What became of an attempt, by what its handshake left.
fn outcome(
    connected: Result<Connection, DialError>,
    address: SocketAddr,
    rule: &Rule,
    slots: &Slots,
) -> Result<Reached, DialError> {
    match (connected, slots.wrong.get()) {
        (Ok(connection), _) => Ok(Reached {
            connection,
            first_seen: slots.proved.get().copied(),
        }),
        (Err(_), Some(wrong)) => Err(DialError::Untrusted(address, Box::new(wrong.clone()))),
        (Err(error), None) => {
            let by_authority = matches!(rule, Rule::PublicAuthority | Rule::Authority(_));
            if by_authority && error.is_about_certificate() {
                return Err(DialError::NotVouchedFor(Box::new(error)));
            }
            Err(error)
        }
    }
}

impl TlsSettings {
    /// TLS 1.3 with our key proved, and never resumed: each connection proves it anew.
    /// What the handshake finds goes to `slots`.
    fn client(
        &self,
        rule: &Rule,
        slots: &Arc<Slots>,
        protocol: &[u8],
    ) -> Result<rustls::ClientConfig, TlsError> {
        let provider = tls::provider();
        let verifier = verifier(rule, slots.clone(), provider.clone())?;
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

#[cfg(test)]
mod tests;
