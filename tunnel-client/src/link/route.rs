//! How a TCP connection to the relay comes about: by itself, or through a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tunnel_common::h2::socket;
use tunnel_common::quic::Congestion;

use super::dial_error::DialError;
use crate::proxy::failure::ProxyError;
use crate::proxy::outbound::OutboundProxy;
use crate::proxy::target::Target;
use crate::race::race;
use crate::resolve::Resolve;

/// The largest segment either way: what fits every path that IPv6 may take (1280 bytes, RFC 8200, 5).
#[cfg(unix)]
const SEGMENT_BYTES: u32 = 1220;

/// Where a TCP connection to the relay leads.
#[derive(Debug)]
pub(super) enum Route<'a> {
    /// Straight to an address.
    Direct(SocketAddr),
    /// Through a proxy, and from there to a target.
    Through(&'a Gateway, Target),
}

/// A proxy, and what it takes to reach it.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) proxy: OutboundProxy,
    pub(super) resolver: Arc<dyn Resolve>,
    /// Before the next address of the proxy is tried beside those that have not answered.
    pub(super) head_start: Duration,
}

impl Route<'_> {
    /// Where it leads.
    pub(super) fn target(&self) -> Target {
        match self {
            Self::Direct(address) => Target::Address(*address),
            Self::Through(_, target) => target.clone(),
        }
    }

    /// Opens a connection whose other end is the relay, by `deadline`. Dropping the future gives it up.
    pub(super) async fn open(
        &self,
        congestion: Congestion,
        deadline: Instant,
    ) -> Result<TcpStream, DialError> {
        let stream = match self {
            Self::Direct(address) => {
                let opened = within(deadline, open(*address)).await;
                opened.map_err(|error| DialError::Tcp(self.target(), error))
            }
            Self::Through(gateway, target) => {
                let opened = gateway.open(target, deadline).await;
                opened.map_err(|error| DialError::Proxy(target.clone(), error))
            }
        }?;
        socket::prepare(&stream, congestion);
        Ok(stream)
    }
}

impl Gateway {
    async fn open(&self, target: &Target, deadline: Instant) -> Result<TcpStream, ProxyError> {
        let (host, port) = (self.proxy.host(), self.proxy.port());
        let resolving = within(deadline, self.resolver.resolve(host, port));
        let addresses = resolving.await.map_err(ProxyError::Resolve)?;
        let attempt = async |address: SocketAddr| {
            let opened = within(deadline, open(address)).await;
            opened.map_err(|error| ProxyError::Unreachable(address, error))
        };
        let raced = race(addresses.into_iter().map(attempt), self.head_start).await;
        let nowhere = || ProxyError::Resolve(io::ErrorKind::NotFound.into());
        let mut stream = raced.map_err(|mut errors| errors.pop().unwrap_or_else(nowhere))?;
        match timeout_at(deadline, self.proxy.connect(&mut stream, target)).await {
            Ok(connected) => connected.map(|()| stream),
            Err(_) => Err(ProxyError::Silent),
        }
    }
}

/// Every TCP connection that leaves for the relay, or for a proxy before it.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
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

async fn within<T>(
    deadline: Instant,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout_at(deadline, future).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
