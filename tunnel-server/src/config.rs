//! What an operator may choose, with the defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tunnel_common::cert_store::CertStore;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::pem_pair::PemPair;
use tunnel_common::quic::{Congestion, QuicTimeouts};
use tunnel_common::splice::options as splice;

use crate::acme::AcmeConfig;
use crate::admission::{Admission, Open};
use crate::proxies::TrustedProxy;
use crate::reset_keys::ResetKeys;

/// The default of [`Config::handshakes_per_second`].
const HANDSHAKES_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// The default of [`Config::handshake_burst`].
const HANDSHAKE_BURST: NonZeroU32 = NonZeroU32::new(500).expect("not zero");

/// The default of [`Config::drain_grace`].
pub const DRAIN_GRACE: Duration = Duration::from_secs(30);

/// The configuration of one relay.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to listen on. `::` takes IPv4 in as well.
    pub bind_addr: IpAddr,
    /// Where agents dial, by UDP and by TCP; 0 takes a free port.
    pub api_port: u16,
    /// Where visitors come; 0 takes a free port.
    pub pub_port: u16,
    /// A second port for visitors, the one on which certificate authorities validate. Where it may
    /// not be bound, a warning is given and the relay runs without, unless there is [`acme`](Self::acme).
    /// 0 takes a free port, the number of [`pub_port`](Self::pub_port) adds nothing.
    pub alpn_port: Option<u16>,
    /// The domains under which agents get their names.
    pub suffixes: Suffixes,
    /// Names by which agents reach the relay itself, beside the suffixes.
    pub own_names: Vec<Hostname>,
    /// The port of the URLs, where visitors reach [`pub_port`](Self::pub_port) by another number.
    pub advertise_port: Option<u16>,
    /// Who may register.
    pub admission: Arc<dyn Admission>,
    /// Proxies in front of the public ports. A connection from one of them must begin with a PROXY
    /// protocol header, which is believed; from anybody else it is no TLS.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The relay's own certificate and key, shown to agents. One that is put in its place while the relay
    /// runs is shown from the next handshake on; tunnels stay.
    pub identity: CertStore,
    /// The files of [`identity`](Self::identity), if the relay is to take what they hold whenever they
    /// change while it runs.
    pub certificate_files: Option<PemPair>,
    /// How [`identity`](Self::identity) is ordered from a certificate authority and renewed, if it is. Its
    /// host is one of the relay's own names.
    pub acme: Option<AcmeConfig>,
    /// By which agents know at once that the relay has crashed and started again, if they are the same as
    /// before. Without them, or if they are lost, agents find out when nothing has come for
    /// [`QuicTimeouts::idle`]; new ones are drawn.
    pub reset_keys: Option<ResetKeys>,
    /// Agents' handshakes that may begin in a second, over QUIC and TCP together: 200, what two small
    /// cores bear beside the visits. More than that wait for their turn, for
    /// [`Timeouts::handshake_turn`] at most; who would have to wait for longer is turned away.
    pub handshakes_per_second: NonZeroU32,
    /// Handshakes that may begin at once when few have for a while: 500.
    pub handshake_burst: NonZeroU32,
    /// Congestion control towards agents.
    pub congestion: Congestion,
    /// Bytes that visitors who do not read may pin in the process.
    pub memory_budget: u64,
    /// Visits at one time; more wait to be accepted.
    pub max_visits: usize,
    /// Where load balancers and supervisors ask about the relay's health, `/healthz` and `/readyz` over
    /// HTTP; port 0 takes a free one. Nowhere unless it is set.
    pub admin_addr: Option<SocketAddr>,
    /// How long a relay that is to end still takes visitors, so that balancers and DNS notice: 0.
    pub drain_delay: Duration,
    /// How long visits then have to get the answers that they wait for, before they are reset: 30 s.
    pub drain_grace: Duration,
    /// How long the relay waits for what.
    pub timeouts: Timeouts,
    /// Where the date comes from.
    pub clock: Clock,
}

/// The domains under which agents get their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suffixes {
    /// Development: whatever follows the id is accepted, and `localhost` is announced.
    Any,
    /// Exactly these. The first is announced first.
    These(Vec<Hostname>),
}

/// How long the relay waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the end of the ClientHello, in all: 10 s, however many reads it takes. To the end of
    /// the handshake where the relay itself answers a certificate authority.
    pub client_hello: Duration,
    /// How long a refused visitor's bytes are still read, so that the alert is not lost: 50 ms.
    pub refusal_linger: Duration,
    /// For a stream to an agent, all its tunnels together: 5 s.
    pub stream_open: Duration,
    /// A visit that has had no answer for so long makes the relay ask whether the agent is there: 300
    /// ms.
    pub first_question: Duration,
    /// A tunnel whose agent has not answered for so long, and two round trips, is suspect: no new visits,
    /// and those without a first answer move to another one. 500 ms.
    pub pong: Duration,
    /// For a handshake's turn when agents come too fast: 2 s, less than they have patience for. Nobody
    /// waits if it is zero. What is kept of those who wait is bounded by it, times
    /// [`Config::handshakes_per_second`].
    pub handshake_turn: Duration,
    /// For the handshakes of an agent that comes over TCP, from its turn on: 10 s.
    pub api_tls: Duration,
    /// An agent that comes over TCP and leaves a question unanswered for so long is dead: 8 s.
    pub h2_silence: Duration,
    /// From the handshake's end to the agent's Hello: 5 s.
    pub hello: Duration,
    /// For whoever decides about an agent: 5 s.
    pub admission: Duration,
    /// For an agent to take a control frame: 5 s.
    pub control_write: Duration,
    /// For an agent that has said goodbye to close its connection: 30 s, what visits get to end.
    pub leaving: Duration,
    /// At the end, for what is being closed to be closed: 1 s.
    pub goodbye: Duration,
    /// The QUIC connections'.
    pub quic: QuicTimeouts,
    /// The visits'. An agent must answer a hello within 10 s.
    pub splice: splice::Timeouts,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client_hello: Duration::from_secs(10),
            refusal_linger: Duration::from_millis(50),
            stream_open: Duration::from_secs(5),
            first_question: Duration::from_millis(300),
            pong: Duration::from_millis(500),
            handshake_turn: Duration::from_secs(2),
            api_tls: Duration::from_secs(10),
            h2_silence: Duration::from_secs(8),
            hello: Duration::from_secs(5),
            admission: Duration::from_secs(5),
            control_write: Duration::from_secs(5),
            leaving: Duration::from_secs(30),
            goodbye: Duration::from_secs(1),
            quic: QuicTimeouts::default(),
            splice: splice::Timeouts {
                first_answer: Some(Duration::from_secs(10)),
                ..splice::Timeouts::default()
            },
        }
    }
}

/// The default of [`Config::max_visits`] for a process that may open `descriptors`: four fifths,
/// so that agents, logs and files always find one.
pub fn max_visits(descriptors: u64) -> usize {
    usize::try_from(descriptors / 5 * 4).unwrap_or(usize::MAX >> 4)
}

impl Config {
    /// Development mode on all addresses: ports 4433, 8443 and 443, any suffix, open to every agent.
    pub fn development(identity: impl Into<CertStore>) -> Self {
        Self {
            bind_addr: Ipv4Addr::UNSPECIFIED.into(),
            api_port: 4433,
            pub_port: 8443,
            alpn_port: Some(443),
            suffixes: Suffixes::Any,
            own_names: vec![],
            advertise_port: None,
            admission: Arc::new(Open::default()),
            trusted_proxies: vec![],
            identity: identity.into(),
            certificate_files: None,
            acme: None,
            reset_keys: None,
            handshakes_per_second: HANDSHAKES_PER_SECOND,
            handshake_burst: HANDSHAKE_BURST,
            congestion: Congestion::default(),
            memory_budget: tunnel_common::process::default_memory_budget(),
            max_visits: max_visits(1024),
            admin_addr: None,
            drain_delay: Duration::ZERO,
            drain_grace: DRAIN_GRACE,
            timeouts: Timeouts::default(),
            clock: Clock::system(),
        }
    }
}
