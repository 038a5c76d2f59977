//! UDP sockets towards the relay.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use quinn::Endpoint;
use tunnel_common::quic;

/// A socket that sends from wherever the route to `address` begins, for each packet anew.
pub(super) fn towards(address: SocketAddr) -> io::Result<UdpSocket> {
    quic::bind_udp(quic::any_towards(address))
}

/// Moves the connections of `endpoint`, which lead to `address`, to a new socket: they ask at once over
/// it whether the peer is there, and go on from there. On error they stay where they are.
pub(super) fn rebind(endpoint: &Endpoint, address: SocketAddr) -> io::Result<()> {
    endpoint.rebind(towards(address)?)
}
