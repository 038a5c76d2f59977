//! Where a TCP connection is to lead.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::host_port::write_host_port;

/// An address, or a name that somebody else resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name that a proxy looks up.
    Name {
        /// A host name of at most 253 bytes.
        host: String,
        /// The TCP port.
        port: u16,
    },
}

impl Target {
    /// The port `port` of `host`: an address literal without brackets, or a host name.
    pub fn new(host: &str, port: u16) -> Self {
        match host.parse::<IpAddr>() {
            Ok(address) => Self::Address(SocketAddr::new(address, port)),
            Err(_) => Self::Name {
                host: host.to_owned(),
                port,
            },
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

/// `host:port`, an IPv6 address in brackets.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write_host_port(f, host, *port),
        }
    }
}
