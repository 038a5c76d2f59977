//! TCP connections that leave the agent for the network.

use std::io;
use std::net::SocketAddr;

#[cfg(unix)]
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

/// The largest segment either way: what fits every path that IPv6 may take (1280 bytes, RFC 8200, 5).
#[cfg(unix)]
const SEGMENT_BYTES: u32 = 1220;

/// Opens a connection to `address`. Dropping the future gives it up.
pub(crate) async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if !address.ip().is_loopback() {
        limit_segments(&socket);
    }
    socket.connect(address).await
}

/// A path that swallows larger packets in silence would cut a tunnel again and again: by default the
/// kernel looks for one only when it is told, and is not (tcp_mtu_probing).
#[cfg(unix)]
fn limit_segments(socket: &TcpSocket) {
    // A system that refuses has its own idea of what fits.
    let _ = SockRef::from(socket).set_tcp_mss(SEGMENT_BYTES);
}

#[cfg(not(unix))]
fn limit_segments(_: &TcpSocket) {}

/// What `future` gives by `deadline`, or [`TimedOut`](io::ErrorKind::TimedOut).
pub(crate) async fn within<T>(
    deadline: Instant,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout_at(deadline, future).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
