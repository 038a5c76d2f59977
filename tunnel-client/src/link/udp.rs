//! UDP sockets towards the relay.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use quinn::Endpoint;
use tunnel_common::quic;

/// A socket that sends from wherever the route to `address` begins, for each packet anew.
pub(super) fn towards(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    quic::bind_udp(SocketAddr::new(any, 0))
}

/// Moves the connections of `endpoint`, which lead to `address`, to a new socket: they ask at once over
/// it whether the peer is there, and go on from there. On error they stay where they are.
pub(super) fn rebind(endpoint: &Endpoint, address: SocketAddr) -> io::Result<()> {
    endpoint.rebind(towards(address)?)
}
