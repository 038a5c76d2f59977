//! The address of a relay, as users write it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tunnel_common::hostname::Hostname;

use crate::host_port::{split_host_port, write_host_port};

/// The port on which relays take agents in.
pub const DEFAULT_API_PORT: u16 = 4433;

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
