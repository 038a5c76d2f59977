//! The local service, and how to reach it.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tunnel_common::wire::code::Code;

use crate::host_port::{split_host_port, write_host_port};
use crate::resolve::Resolve;

/// Where a bare port is.
const DEFAULT_HOST: &str = "127.0.0.1";

/// What the agent publishes: a TCP address, resolved anew for each visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    host: String,
    port: u16,
}

/// Why a text is no [`LocalService`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a local service is written host:port, or as a bare port of 127.0.0.1")]
pub struct BadLocalService;

impl FromStr for LocalService {
    type Err = BadLocalService;

    fn from_str(text: &str) -> Result<Self, BadLocalService> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let port = text
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(BadLocalService)?;
            return Ok(Self {
                host: DEFAULT_HOST.to_owned(),
                port,
            });
        }
        match split_host_port(text) {
            Some((host, Some(port))) => Ok(Self { host, port }),
            _ => Err(BadLocalService),
        }
    }
}

impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

/// Why the local service was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// It said no, or its name has no address.
    #[error("the local service {service} refused the connection: {source}")]
    Refused {
        /// Which.
        service: LocalService,
        /// Why.
        source: io::Error,
    },
    /// It said nothing.
    #[error("the local service {service} did not answer within {waited:?}")]
    Timeout {
        /// Which.
        service: LocalService,
        /// The deadline.
        waited: Duration,
    },
}

impl DialError {
    /// What the relay is told.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { .. } => Code::LocalRefused,
            Self::Timeout { .. } => Code::LocalTimeout,
        }
    }
}

impl LocalService {
    /// Connects, trying each address in turn, all within `deadline`. Cancel safe.
    pub async fn dial(
        &self,
        resolver: &dyn Resolve,
        deadline: Duration,
    ) -> Result<TcpStream, DialError> {
        match timeout(deadline, self.connect(resolver)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(DialError::Refused {
                service: self.clone(),
                source,
            }),
            Err(_) => Err(DialError::Timeout {
                service: self.clone(),
                waited: deadline,
            }),
        }
    }

    async fn connect(&self, resolver: &dyn Resolve) -> io::Result<TcpStream> {
        let mut refusal = io::Error::from(io::ErrorKind::NotFound);
        for address in resolver.resolve(&self.host, self.port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::resolve::{Resolving, SystemResolver};

    #[test]
    fn a_local_service_is_an_address_or_a_bare_port() {
        let cases = [
            ("3000", "127.0.0.1:3000"),
            ("localhost:80", "localhost:80"),
            ("[::1]:80", "[::1]:80"),
        ];
        for (text, shown) in cases {
            assert_eq!(
                text.parse::<LocalService>().map(|l| l.to_string()),
                Ok(shown.to_owned())
            );
        }
        for text in ["", "0", "65536", "localhost", ":80", "http://x:1"] {
            assert_eq!(
                text.parse::<LocalService>(),
                Err(BadLocalService),
                "{text:?}"
            );
        }
    }

    /// A name with these addresses.
    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolve for Fixed {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
            Box::pin(async { Ok(self.0.clone()) })
        }
    }

    /// A name whose look-up never comes back.
    #[derive(Debug)]
    struct Silent;

    impl Resolve for Silent {
        fn resolve<'a>(&'a self, _: &'a str, _: u16) -> Resolving<'a> {
            Box::pin(std::future::pending())
        }
    }

    const DEADLINE: Duration = Duration::from_secs(5);

    async fn closed_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        listener.local_addr().expect("bound")
    }

    #[tokio::test]
    async fn a_second_address_serves_when_the_first_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let alive = listener.local_addr().expect("bound");
        let resolver = Fixed(vec![closed_port().await, alive]);
        let service: LocalService = "name:1".parse().expect("a service");
        let stream = service.dial(&resolver, DEADLINE).await.expect("connects");
        assert_eq!(stream.peer_addr().expect("connected"), alive);
    }

    #[tokio::test]
    async fn refused_and_timed_out_are_told_apart() {
        let service: LocalService = closed_port().await.to_string().parse().expect("a service");
        let error = service
            .dial(&SystemResolver, DEADLINE)
            .await
            .expect_err("refused");
        assert_eq!(error.code(), Code::LocalRefused);

        tokio::time::pause();
        let error = service
            .dial(&Silent, DEADLINE)
            .await
            .expect_err("times out");
        assert_eq!(error.code(), Code::LocalTimeout);
    }
}
