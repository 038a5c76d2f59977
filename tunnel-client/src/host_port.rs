//! `host:port` as users write it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use tunnel_common::hostname::Hostname;

/// Splits `host[:port]`; the host is a name or an address literal, which loses its brackets.
pub(crate) fn split_host_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':')?)
                },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    if !is_address && host.parse::<Hostname>().is_err() {
        return None;
    }
    let port = port.map(str::parse::<u16>).transpose().ok()?;
    if port == Some(0) {
        None
    } else {
        Some((host.to_owned(), port))
    }
}

/// Writes `host:port`, an IPv6 literal in brackets.
pub(crate) fn write_host_port(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "[{host}]:{port}")
    } else {
        write!(f, "{host}:{port}")
    }
}
