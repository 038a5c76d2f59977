//! What a user may choose, with the defaults.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::KeyPair;
use tunnel_common::clock::Clock;
use tunnel_common::hostname::Hostname;
use tunnel_common::quic::{Congestion, QuicTimeouts};
use tunnel_common::splice::options as splice;
use tunnel_common::wire::frame::EndpointRef;

use crate::host_port::{split_host_port, write_host_port};
use crate::link::known_relays::KnownRelays;
use crate::link::relay_trust::RelayTrust;
use crate::local::LocalService;
use crate::resolve::{Resolve, SystemResolver};

/// The port on which relays take agents in.
pub const DEFAULT_API_PORT: u16 = 4433;

/// The configuration of one agent.
#[derive(Debug)]
pub struct Config {
    /// The relay to be attached to.
    pub relay: RelayAddr,
    /// How to know it.
    pub trust: RelayTrust,
    /// Where relays are recorded that were believed on first sight; what it says about the relay
    /// comes before every rule but a pin. Without a file they are believed as long as the agent runs.
    pub known_relays: Option<KnownRelays>,
    /// What to publish.
    pub endpoint: EndpointConfig,
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
    /// Protocols that visitors are offered (ALPN), best first; none at all takes any visitor.
    pub alpn: Vec<Vec<u8>>,
    /// The domain under which it wants its name; without one, what the relay announces.
    pub suffix: Option<Hostname>,
}

impl Config {
    /// Publishes `local` through `relay` under the identity of `key`.
    pub fn new(relay: RelayAddr, key: KeyPair, local: LocalService) -> Self {
        let trust = RelayTrust::by_default(relay.host());
        Self {
            relay,
            trust,
            known_relays: None,
            endpoint: EndpointConfig {
                name: EndpointRef::default(),
                key,
                claim: None,
                local,
                alpn: vec![b"http/1.1".to_vec()],
                suffix: None,
            },
            congestion: Congestion::default(),
            memory_budget: tunnel_common::process::default_memory_budget(),
            timeouts: Timeouts::default(),
            clock: Clock::system(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

/// How long the agent waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Before the next address of the relay is tried beside those that have not answered: 250 ms
    /// (RFC 8305, 8).
    pub head_start: Duration,
    /// For the resolver: 5 s.
    pub resolve: Duration,
    /// From the handshake's end to the relay's Welcome: 5 s.
    pub welcome: Duration,
    /// For the header of a visit's stream: 5 s.
    pub header: Duration,
    /// For a visitor's TLS handshake: 10 s.
    pub visitor_tls: Duration,
    /// For a connection to the local service, resolving included: 5 s.
    pub local_dial: Duration,
    /// At the end, for the relay to hear of it: 1 s.
    pub goodbye: Duration,
    /// The tunnel's.
    pub quic: QuicTimeouts,
    /// The visits'.
    pub splice: splice::Timeouts,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_start: Duration::from_millis(250),
            resolve: Duration::from_secs(5),
            welcome: Duration::from_secs(5),
            header: Duration::from_secs(5),
            visitor_tls: Duration::from_secs(10),
            local_dial: Duration::from_secs(5),
            goodbye: Duration::from_secs(1),
            quic: QuicTimeouts::default(),
            splice: splice::Timeouts::default(),
        }
    }
}

/// Where a relay takes agents in: `host`, `host:port`, `[v6]` or `[v6]:port`. Two that name one
/// place in two spellings are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddr {
    host: String,
    port: u16,
}

/// Why a text is no [`RelayAddr`].
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("a relay is written host or host:port, an IPv6 address in [brackets]")]
pub struct BadRelayAddr;

impl RelayAddr {
    /// A host name or an address literal without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for RelayAddr {
    type Err = BadRelayAddr;

    fn from_str(text: &str) -> Result<Self, BadRelayAddr> {
        let (host, port) = split_host_port(text).ok_or(BadRelayAddr)?;
        let address = host.parse::<IpAddr>().map(|address| address.to_string());
        let name = || host.parse::<Hostname>().map(|name| name.to_string());
        Ok(Self {
            host: address.or_else(|_| name()).map_err(|_| BadRelayAddr)?,
            port: port.unwrap_or(DEFAULT_API_PORT),
        })
    }
}

impl fmt::Display for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_a_host_and_perhaps_a_port() {
        let cases = [
            ("relay.example.com", "relay.example.com:4433"),
            ("relay.example.com:99", "relay.example.com:99"),
            ("127.0.0.1", "127.0.0.1:4433"),
            ("[::1]", "[::1]:4433"),
            ("[::1]:99", "[::1]:99"),
            ("Relay.Example.:99", "relay.example:99"),
            ("[0:0::1]", "[::1]:4433"),
        ];
        for (text, shown) in cases {
            assert_eq!(
                text.parse::<RelayAddr>().map(|r| r.to_string()),
                Ok(shown.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_relay_is_not_taken() {
        let bad = [
            "",
            ":4433",
            "a b",
            "host:",
            "host:0",
            "host:65536",
            "[::1",
            "[x]",
            "::1",
            "https://x",
        ];
        for text in bad {
            assert_eq!(text.parse::<RelayAddr>(), Err(BadRelayAddr), "{text:?}");
        }
    }
}
