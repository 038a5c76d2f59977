//! One attempt to reach the relay: choose the rule of trust, resolve, race the addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::time::timeout;
use tracing::warn;
use tunnel_common::clock::Clock;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::quic::{self, Congestion, describe};
use tunnel_common::tls;
use tunnel_common::wire::alpn;
use tunnel_common::wire::code::Code;

use super::known_relays::{KnownRelays, KnownRelaysError};
use super::relay_trust::{RelayTrust, Rule, Source};
use super::verifier::{VerifierError, WrongKey, verifier};
use crate::config::Timeouts;
use crate::race::race;
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;

/// Visits that the relay may have open at one time.
const VISIT_STREAMS: VarInt = VarInt::from_u32(10_000);
/// Nothing uses one-way streams.
const UNI_STREAMS: VarInt = VarInt::from_u32(0);

/// Why the relay was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    /// Its name has no address.
    #[error("the relay's address could not be found: {0}")]
    Resolve(#[source] io::Error),
    /// No UDP socket could be had.
    #[error("no UDP socket for {0}: {1}")]
    Socket(SocketAddr, #[source] io::Error),
    /// The address can not be dialled.
    #[error("{0} can not be dialled: {1}")]
    Connect(SocketAddr, #[source] quinn::ConnectError),
    /// Nobody answered, or not as a relay should.
    #[error("no tunnel to {0}: {why}", why = describe(.1))]
    Handshake(SocketAddr, #[source] quinn::ConnectionError),
    /// Whom to trust can not be found out.
    #[error(transparent)]
    KnownRelays(#[from] KnownRelaysError),
    /// TLS can not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another process has believed another key meanwhile.
    #[error(transparent)]
    WrongKey(Box<WrongKey>),
    /// Nobody answered at all.
    #[error("{0} does not answer (UDP): is the relay running, and does a firewall pass it?")]
    Timeout(SocketAddr),
}

/// Why no tunnel can be dialled with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// TLS refuses the configuration.
    #[error("TLS for the tunnel can not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The trust rule can not be applied.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// A cipher that QUIC needs is missing.
    #[error("QUIC can not be set up: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Dials one relay, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct Dialler {
    relay: RelayAddr,
    tls: TlsSettings,
    transport: Arc<TransportConfig>,
    timeouts: Timeouts,
    resolver: Arc<dyn Resolve>,
    /// The key that was believed on first sight and could not be recorded.
    believed: Mutex<Option<KeyFingerprint>>,
}

/// A connection to the relay, on a socket of its own.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// The connection.
    pub(crate) connection: Connection,
    endpoint: Endpoint,
}

impl Dialled {
    /// Closes the connection, and waits until the relay has heard, for `at_most` that long.
    pub(crate) async fn close(self, code: Code, at_most: Duration) {
        self.connection
            .close(code.into(), code.to_string().as_bytes());
        // A relay that does not hear finds out by itself.
        let _ = timeout(at_most, self.endpoint.wait_idle()).await;
    }
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
    /// Prepares to dial `relay`. `window` is the connection's receive window.
    pub(crate) fn new(
        relay: RelayAddr,
        tls: TlsSettings,
        congestion: Congestion,
        window: u64,
        timeouts: Timeouts,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        let mut transport = quic::transport(congestion, &timeouts.quic, window);
        transport
            .max_concurrent_bidi_streams(VISIT_STREAMS)
            .max_concurrent_uni_streams(UNI_STREAMS)
            .keep_alive_interval(Some(timeouts.quic.keep_alive));
        if let RelayTrust::PrivateCa(authorities) = &tls.trust {
            verifier(&Rule::Authority(authorities.clone()), tls::provider())?;
        }
        Ok(Self {
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
    pub(crate) async fn dial(&self) -> Result<Dialled, DialError> {
        let believed = *self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.tls.known_relays.as_ref();
        let rule = self.tls.trust.choose(&self.relay, known, believed)?;
        let mut quic = ClientConfig::new(Arc::new(quic_tls(&self.tls, &rule)?));
        quic.transport_config(self.transport.clone());
        let addresses = self.resolve().await?;
        let attempts = addresses
            .into_iter()
            .map(|address| self.attempt(address, &quic));
        let none = DialError::Resolve(io::ErrorKind::NotFound.into());
        let dialled = race(attempts, self.timeouts.head_start, none).await?;
        if let Rule::FirstUse(first) = &rule
            && let Some(key) = first.get()
        {
            self.believe(*key)?;
        }
        Ok(dialled)
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

    async fn attempt(
        &self,
        address: SocketAddr,
        quic: &ClientConfig,
    ) -> Result<Dialled, DialError> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = |error| DialError::Socket(address, error);
        let udp = quic::bind_udp(SocketAddr::new(any, 0)).map_err(socket)?;
        let config = EndpointConfig::default();
        let endpoint = Endpoint::new(config, None, udp, Arc::new(TokioRuntime)).map_err(socket)?;
        let connecting = endpoint
            .connect_with(quic.clone(), address, self.relay.host())
            .map_err(|error| DialError::Connect(address, error))?;
        match timeout(self.timeouts.quic.handshake, connecting).await {
            Ok(Ok(connection)) => Ok(Dialled {
                connection,
                endpoint,
            }),
            Ok(Err(error)) => Err(DialError::Handshake(address, error)),
            Err(_) => Err(DialError::Timeout(address)),
        }
    }
}

/// TLS 1.3 with our key proved, and never resumed: each connection proves it anew.
fn quic_tls(settings: &TlsSettings, rule: &Rule) -> Result<QuicClientConfig, TlsError> {
    let provider = tls::provider();
    let verifier = verifier(rule, provider.clone())?;
    let identity = Arc::new(SingleCertAndKey::from(settings.identity.clone()));
    let clock = Arc::new(settings.clock.clone());
    let mut tls = rustls::ClientConfig::builder_with_details(provider, clock)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(identity);
    tls.alpn_protocols = vec![alpn::QUIC.to_vec()];
    tls.resumption = Resumption::disabled();
    Ok(tls.try_into()?)
}
