//! How a TCP connection to the relay comes about: by itself, or through a proxy.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tunnel_common::h2::socket;
use tunnel_common::quic::Congestion;

use super::dial_error::DialError;
use crate::proxy::gateway::Gateway;
use crate::proxy::target::Target;
use crate::tcp::{self, within};

/// Where a TCP connection to the relay leads.
#[derive(Debug)]
pub(super) enum Route<'a> {
    /// Straight to an address.
    Direct(SocketAddr),
    /// Through a proxy, and from there to a target.
    Through(&'a Gateway, Target),
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
                let opened = within(deadline, tcp::open(*address)).await;
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
