//! A proxy that is asked for connections: how it is reached itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::ProxyError;
use super::outbound::OutboundProxy;
use super::target::Target;
use crate::race::race;
use crate::resolve::Resolve;
use crate::tcp::{self, within};

/// A proxy, and what it takes to reach it.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The proxy.
    pub(crate) proxy: OutboundProxy,
    /// Where its own address comes from.
    pub(crate) resolver: Arc<dyn Resolve>,
    /// Before the next address of the proxy is tried beside those that have not answered.
    pub(crate) head_start: Duration,
}

impl Gateway {
    /// A connection through the proxy to `target`, by `deadline`. Dropping the future gives it up.
    pub(crate) async fn open(
        &self,
        target: &Target,
        deadline: Instant,
    ) -> Result<TcpStream, ProxyError> {
        let (host, port) = (self.proxy.host(), self.proxy.port());
        let resolving = within(deadline, self.resolver.resolve(host, port));
        let addresses = resolving.await.map_err(ProxyError::Resolve)?;
        let attempt = async |address: SocketAddr| {
            let opened = within(deadline, tcp::open(address)).await;
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
