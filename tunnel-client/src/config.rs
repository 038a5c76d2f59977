//! What a user may choose, with the defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use rustls::sign::CertifiedKey;
use tunnel_common::acme::ca::Acme;
use tunnel_common::acme::dial::Dial;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::pem_pair::PemPair;
use tunnel_common::quic::{Congestion, QuicTimeouts};
use tunnel_common::splice::options as splice;
use tunnel_common::wire::frame::EndpointRef;

use crate::link::known_relays::KnownRelays;
use crate::link::relay_trust::RelayTrust;
use crate::local::LocalService;
use crate::local::proxy_protocol::ProxyProtocol;
use crate::outward::Outward;
use crate::proxy::outbound::OutboundProxy;
use crate::race::HEAD_START;
use crate::relay_addr::RelayAddr;
use crate::resolve::{Resolve, SystemResolver};
use crate::tls_mode::TlsMode;

/// The default of [`Timeouts::drain_grace`].
pub const DRAIN_GRACE: Duration = Duration::from_secs(30);

/// The default of [`Config::pool_size`].
pub const POOL_SIZE: u16 = 4;

/// The configuration of one agent.
#[derive(Debug)]
pub struct Config {
    /// The relays to be attached to, each by a link of its own: at least one. All of them serve the same.
    pub relays: Vec<RelayConfig>,
    /// Where relays are recorded that were believed on first sight; what it says about the relay
    /// comes before every rule but a pin. Without a file they are believed as long as the agent runs.
    pub known_relays: Option<KnownRelays>,
    /// What to publish.
    pub endpoint: EndpointConfig,
    /// What to publish besides, under another key and another ref, on the same tunnel. If the relay
    /// does not take it, the first is published all the same.
    pub second: Option<EndpointConfig>,
    /// Whence the certificates that visitors of the first endpoint are shown. Those of the second always get a
    /// self-signed one.
    pub certificates: Certificates,
    /// The port of the relay that is tried over TCP when its own port passes neither UDP nor TCP: some
    /// networks let nothing else out. 443; without one, nothing is tried.
    pub last_port: Option<u16>,
    /// What may carry the tunnel.
    pub transport: Transport,
    /// Connections that serve together where the tunnel is HTTP/2, at least one: 4. A lost packet holds
    /// up the visits of one of them.
    pub pool_size: u16,
    /// Congestion control towards the relay.
    pub congestion: Congestion,
    /// Bytes that a local service which does not read may pin in the process.
    pub memory_budget: u64,
    /// How long the agent waits for what.
    pub timeouts: Timeouts,
    /// Where the date comes from.
    pub clock: Clock,
    /// Where addresses come from.
    pub resolver: Arc<dyn Resolve>,
    /// How everything is reached that is neither a relay nor the local service: an [`Outward`] by the
    /// system's resolver, without a proxy, and to public addresses only where the name is an agent's.
    pub dial: Arc<dyn Dial>,
    /// When the agent looks at its own public URLs.
    pub honesty: Honesty,
}

/// When the agent looks at its own public URLs, to see whether somebody answers there in its place.
#[derive(Clone, Copy, Debug)]
pub struct Honesty {
    /// For the first time, from when it serves: 1 min.
    pub first: Duration,
    /// From one look to the next, up to a fifth more or less by chance: 6 h.
    pub every: Duration,
    /// Whether it also looks at names that lead to nobody but in a local network: no. [`Config::dial`] has to
    /// lead there, too.
    pub local_names: bool,
}

impl Default for Honesty {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(60),
            every: Duration::from_secs(6 * 3600),
            local_names: false,
        }
    }
}

/// One relay to be attached to.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where it is.
    pub address: RelayAddr,
    /// How to know it.
    pub trust: RelayTrust,
    /// The proxy through which it is reached; then by HTTP/2 alone, and no packet goes around it. None
    /// unless it is set here: the environment is asked by
    /// [`environment::proxy`](crate::proxy::environment::proxy) only.
    pub proxy: Option<OutboundProxy>,
}

impl RelayConfig {
    /// The relay at `address`, known by the rule that holds for its host by default, without a proxy.
    pub fn new(address: RelayAddr) -> Self {
        let trust = RelayTrust::by_default(address.host());
        Self {
            address,
            trust,
            proxy: None,
        }
    }
}

/// Whence certificates come. Where the local service ends visitors' TLS this has no meaning.
#[derive(Debug, Default)]
pub enum Certificates {
    /// The endpoint's key signs them itself.
    #[default]
    SelfSigned,
    /// The user brings one, for whatever names.
    Brought {
        /// Where it is; it is read again when it changes.
        files: PemPair,
        /// What was in the files.
        first: Arc<CertifiedKey>,
    },
    /// A certificate authority issues them, one for each host name. Until the first is there, and where no
    /// authority can come to look, they are self-signed.
    Issued(Box<Issued>),
}

impl Certificates {
    /// Whether visitors see the endpoint's own key, by which they can tell from the host name alone that the
    /// agent itself answers.
    pub(crate) fn are_for_own_key(&self) -> bool {
        match self {
            Self::SelfSigned => true,
            Self::Brought { .. } => false,
            Self::Issued(issued) => issued.key.is_none(),
        }
    }
}

/// How certificates are ordered.
#[derive(Debug)]
pub struct Issued {
    /// From whom.
    pub acme: Acme,
    /// Where the chain of the first host name is kept; those of others stand beside it, with their names in
    /// theirs.
    pub file: PathBuf,
    /// The key that they are for; the endpoint's own without one, by which everybody can tell from the
    /// host name alone that the agent itself answers.
    pub key: Option<KeyPair>,
    /// How many days before the end to renew; by default the authority says, or a third of the lifetime.
    pub renew_days: Option<u32>,
    /// Whether names that mean something in a local network only are certified too, as private authorities do.
    /// Where they are not, the dial of [`acme`](Self::acme) should keep agents to public addresses.
    pub any_name: bool,
}

/// What may carry the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// QUIC, and HTTP/2 where that does not pass.
    #[default]
    Any,
    /// QUIC, and no tunnel where that does not pass.
    OnlyQuic,
    /// HTTP/2 over TCP; no UDP packet is sent to the relay.
    OnlyH2,
}

/// One endpoint to publish.
#[derive(Debug)]
pub struct EndpointConfig {
    /// The agent's own name of it.
    pub name: EndpointRef,
    /// Its key: the identity.
    pub key: KeyPair,
    /// What the certificate that the relay sees claims in its private extension, up to 7 KiB: for the
    /// relay's admission, and for nobody else's eyes.
    pub claim: Option<Vec<u8>>,
    /// Where visits go.
    pub local: LocalService,
    /// Where visitors' TLS ends. Where that is the local service, it gets their bytes as they are:
    /// one that the agent speaks TLS to of its own makes no sense then.
    pub tls: TlsMode,
    /// How the local service is told who comes, if at all.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Protocols that visitors are offered (ALPN), best first; none at all takes any visitor.
    /// Without a meaning where the local service ends the TLS.
    pub alpn: Vec<Vec<u8>>,
    /// The domain under which it wants its name; without one, what the relay announces.
    pub suffix: Option<Hostname>,
}

impl EndpointConfig {
    /// Publishes `local` under the identity of `key`, with TLS that ends here, for HTTP/1.1.
    pub fn new(key: KeyPair, local: LocalService) -> Self {
        Self {
            name: EndpointRef::default(),
            key,
            claim: None,
            local,
            tls: TlsMode::default(),
            proxy_protocol: None,
            alpn: vec![b"http/1.1".to_vec()],
            suffix: None,
        }
    }
}

impl Config {
    /// Publishes `endpoint` through `relay`.
    pub fn new(relay: RelayAddr, endpoint: EndpointConfig) -> Self {
        Self::through(vec![RelayConfig::new(relay)], endpoint)
    }

    /// Publishes `endpoint` through each of `relays`.
    pub fn through(relays: Vec<RelayConfig>, endpoint: EndpointConfig) -> Self {
        Self {
            relays,
            known_relays: None,
            endpoint,
            second: None,
            certificates: Certificates::SelfSigned,
            last_port: Some(443),
            transport: Transport::default(),
            pool_size: POOL_SIZE,
            congestion: Congestion::default(),
            memory_budget: tunnel_common::process::default_memory_budget(),
            timeouts: Timeouts::default(),
            clock: Clock::system(),
            resolver: Arc::new(SystemResolver),
            dial: Arc::new(Outward::new(Arc::new(SystemResolver)).with_agents_in_public()),
            honesty: Honesty::default(),
        }
    }
}

/// How long the agent waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Before the next address of the relay, or of the local service, is tried beside those that
    /// have not answered: 250 ms (RFC 8305, 8).
    pub head_start: Duration,
    /// For the resolver: 5 s.
    pub resolve: Duration,
    /// For a TCP connection to the relay and its handshakes, a proxy's included: 5 s.
    pub tcp_handshake: Duration,
    /// A relay over TCP that leaves a question unanswered for so long is dead: 8 s.
    pub h2_silence: Duration,
    /// Before QUIC is tried again beside a tunnel over HTTP/2: 30 s, doubling up to ten times as long.
    pub quic_probe: Duration,
    /// From the handshake's end to the relay's Welcome: 10 s, since whoever decides there whether to let
    /// us in has 5 s.
    pub welcome: Duration,
    /// For the header of a visit's stream: 5 s.
    pub header: Duration,
    /// For a visitor's TLS handshake: 10 s.
    pub visitor_tls: Duration,
    /// For a connection to the local service, from resolving to the end of a TLS handshake: 5 s.
    pub local_dial: Duration,
    /// At the end, for the relay to hear of it: 1 s.
    pub goodbye: Duration,
    /// At the end, for visits to get the answers that they wait for, before they are reset: 30 s, which
    /// is what a relay gives.
    pub drain_grace: Duration,
    /// Between two attempts to reach the relay.
    pub redial: Redial,
    /// The tunnel's.
    pub quic: QuicTimeouts,
    /// The visits'.
    pub splice: splice::Timeouts,
}

/// How long the agent waits before it dials the relay again, from the beginning of the attempt that failed or
/// from the tunnel's loss. Each wait is drawn from nothing to its longest, which doubles from the first on;
/// an attempt that takes longer than the wait is followed by the next at once.
#[derive(Clone, Copy, Debug)]
pub struct Redial {
    /// The first wait at its longest: 500 ms.
    pub first: Duration,
    /// The longest in the first 15 min after a tunnel served, so that a relay that restarts is found
    /// again at once: 4 s.
    pub longest_young: Duration,
    /// The longest later, so that a relay that is gone for days is not pestered: 30 s.
    pub longest: Duration,
}

impl Default for Redial {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest_young: Duration::from_secs(4),
            longest: Duration::from_secs(30),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_start: HEAD_START,
            resolve: Duration::from_secs(5),
            tcp_handshake: Duration::from_secs(5),
            h2_silence: Duration::from_secs(8),
            quic_probe: Duration::from_secs(30),
            welcome: Duration::from_secs(10),
            header: Duration::from_secs(5),
            visitor_tls: Duration::from_secs(10),
            local_dial: Duration::from_secs(5),
            goodbye: Duration::from_secs(1),
            drain_grace: DRAIN_GRACE,
            redial: Redial::default(),
            quic: QuicTimeouts::default(),
            splice: splice::Timeouts::default(),
        }
    }
}
