//! Names to addresses, as a value that is handed in.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tunnel_common::hostname::loopback;

/// What a resolver promises.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a host, anew each time.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, best first, with `port`. None is an error. The caller sets the
    /// deadline.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver. An address literal is taken as it is, and `localhost` and the names under it are
/// loopback, without a question to anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(address, port)]);
            }
            if loopback(host) {
                let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                return Ok(both.map(|address| SocketAddr::new(address, port)).to_vec());
            }
            let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
            if addresses.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the name has no address",
                ));
            }
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_are_taken_and_names_under_localhost_lead_here() {
        let literal = SystemResolver.resolve("::1", 7).await.expect("a literal");
        assert_eq!(literal, ["[::1]:7".parse().expect("an address")]);
        for name in ["localhost", "no-such-host.localhost"] {
            let here = SystemResolver.resolve(name, 7).await.expect("a name");
            let both = ["127.0.0.1:7", "[::1]:7"];
            assert_eq!(here, both.map(|text| text.parse().expect("an address")));
        }
    }
}
