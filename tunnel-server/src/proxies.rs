//! Proxies in front of the public ports, who say where a visitor comes from.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// Bits of the prefix `::ffff:0:0/96`, under which IPv6 writes IPv4 addresses (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A network whose hosts are believed when they say who a visitor is: `10.0.0.0/8`, `2001:db8::/32`,
/// or one address.
///
/// No IPv4 address is in an IPv6 network, not even in `::/0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

/// Why a text is no [`TrustedProxy`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a network is an IP address, or one with the number of its bits that count: 10.0.0.0/8")]
pub struct BadNetwork;

impl TrustedProxy {
    /// Whether this is one of them. An IPv4-mapped address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl FromStr for TrustedProxy {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let address = text.parse().map(|ip: IpAddr| IpNet::from(ip));
        let network = address.or_else(|_| text.parse()).map_err(|_| BadNetwork)?;
        Ok(Self(canonical(network)))
    }
}

/// A network of IPv4-mapped addresses is one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network.addr().to_canonical() {
        IpAddr::V4(ip) => network
            .prefix_len()
            .checked_sub(MAPPED_PREFIX)
            .and_then(|bits| Ipv4Net::new(ip, bits).ok()),
        IpAddr::V6(_) => None,
    };
    match (network, mapped) {
        (IpNet::V6(_), Some(mapped)) => mapped.into(),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, ip: &str) -> bool {
        let network: TrustedProxy = network.parse().expect("a network");
        network.contains(ip.parse().expect("an address"))
    }

    #[test]
    fn an_address_alone_is_that_address_and_no_other() {
        assert!(contains("192.0.2.1", "192.0.2.1"));
        assert!(!contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("2001:db8::1", "2001:db8::1"));
        assert!(!contains("2001:db8::1", "2001:db8::2"));
    }

    #[test]
    fn a_network_has_its_hosts_whatever_stands_behind_its_bits() {
        for network in ["10.0.0.0/8", "10.1.2.3/8"] {
            assert!(contains(network, "10.255.255.255"));
            assert!(!contains(network, "11.0.0.0"));
        }
        assert!(contains("2001:db8::/32", "2001:db8:ffff::"));
        assert!(contains("0.0.0.0/0", "203.0.113.7"));
    }

    #[test]
    fn mapped_addresses_are_ipv4_on_both_sides() {
        for network in ["192.0.2.0/24", "::ffff:192.0.2.0/120"] {
            assert!(contains(network, "192.0.2.7"), "{network}");
            assert!(contains(network, "::ffff:192.0.2.7"), "{network}");
            assert!(!contains(network, "192.0.3.7"), "{network}");
        }
        assert!(contains("::ffff:192.0.2.7", "192.0.2.7"));
        assert!(!contains("::/0", "192.0.2.7"));
        assert!(!contains("192.0.2.0/24", "2001:db8::1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "proxy.example",
            "10.0.0.1 ",
        ] {
            assert_eq!(bad.parse::<TrustedProxy>(), Err(BadNetwork), "{bad:?}");
        }
    }
}
