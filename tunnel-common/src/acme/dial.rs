//! TCP connections to a host by its name, as a value that is handed in: an agent may have to go through a
//! proxy.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tokio::net::TcpStream;

use crate::hostname;

/// What a [`Dial`] promises.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Opens TCP connections.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A connection to `port` of `host`, a name or an address literal without brackets. The caller sets
    /// the deadline; dropping the future gives it up.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a>;
}

/// By the system's resolver and without a proxy. Names under `localhost` are this machine, and nobody is
/// asked about them (RFC 6761, 6.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move {
            if !hostname::loopback(host) {
                return TcpStream::connect((host, port)).await;
            }
            let loopback = [
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ];
            let addresses = loopback.map(|address| SocketAddr::new(address, port));
            TcpStream::connect(&addresses[..]).await
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_name_that_no_resolver_knows_is_dialled_on_loopback() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("binds");
        let address = listener.local_addr().expect("bound");
        let dialled = Direct.dial("relay.localhost", address.port()).await;
        let dialled = dialled.expect("connects");
        assert_eq!(dialled.peer_addr().expect("is connected"), address);
    }
}
