//! UDP sockets towards the relay.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use tunnel_common::quic;

/// A socket that sends from wherever the route to `address` begins, for each packet anew.
pub(super) fn towards(address: SocketAddr) -> io::Result<UdpSocket> {
    quic::bind_udp(quic::any_towards(address))
}
