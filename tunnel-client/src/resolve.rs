//! Names to addresses, as a value that is handed in.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

/// What a resolver promises.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Finds the addresses of a host, anew each time.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of `host`, best first, with `port`. None is an error. The caller sets the
    /// deadline.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a>;
}

/// The system's resolver; an address literal is taken as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![SocketAddr::new(address, port)]);
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
    async fn literals_and_names_resolve() {
        let literal = SystemResolver.resolve("::1", 7).await.expect("a literal");
        assert_eq!(literal, ["[::1]:7".parse().expect("an address")]);
        let name = SystemResolver
            .resolve("localhost", 7)
            .await
            .expect("a name");
        assert!(
            name.iter()
                .all(|address| address.ip().is_loopback() && address.port() == 7)
        );
    }
}
