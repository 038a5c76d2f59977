//! A visit's connection to the local service: resolve, connect, introduce the visitor, TLS.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};
use tracing::warn;
use tunnel_common::clock::Clock;
use tunnel_common::escape::Escaped;
use tunnel_common::splice::duplex::DuplexEnd;
use tunnel_common::splice::end::AnyEnd;
use tunnel_common::stream::header::StreamHeader;
use tunnel_common::tls;
use tunnel_common::wire::code::Code;

use super::proxy_protocol::ProxyProtocol;
use super::service::{Address, LocalService, Place};
use super::trust::LocalTrust;
use crate::config::Timeouts;
use crate::race::race;
use crate::resolve::Resolve;

/// A Unix socket whose queue is full says so at once, and nothing tells when it has room again.
const UNIX_RETRY: Duration = Duration::from_millis(20);

/// Why the local service was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
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
    /// It is there, and TLS with it failed.
    #[error(
        "no TLS with the local service {service}: {why}; {hint}",
        why = Escaped(&source.to_string())
    )]
    Tls {
        /// Which.
        service: LocalService,
        /// What the user can do.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl DialError {
    /// What the relay is told.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Refused { .. } | Self::Tls { .. } => Code::LocalRefused,
            Self::Timeout { .. } => Code::LocalTimeout,
        }
    }
}

/// What the user can do about a handshake that failed.
fn hint(error: &io::Error, service: &LocalService) -> &'static str {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    let takes_any =
        matches!(&service.place, Place::Https { trust, .. } if *trust == LocalTrust::Anything);
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) if takes_any => {
            "it can not be read at all: the service needs one of X.509 version 3, with a key of ECDSA \
             or of RSA with 2048 bits"
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            "give the authority that signed its certificate, or the certificate itself, with \
             --local-ca, or take any certificate with --local-insecure"
        }
        Some(rustls::Error::InvalidMessage(_)) => "if it speaks no TLS there, write http://",
        _ => "its own log may tell more",
    }
}

/// Reaches one local service, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct LocalDialler {
    service: LocalService,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    proxy_protocol: Option<ProxyProtocol>,
}

/// One visit for which the local service is dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    /// What the relay says about it.
    pub(crate) header: &'a StreamHeader,
    /// The protocol that was agreed with the visitor (ALPN).
    pub(crate) alpn: Option<&'a [u8]>,
    /// Where addresses come from.
    pub(crate) resolver: &'a dyn Resolve,
    /// How long to wait.
    pub(crate) timeouts: &'a Timeouts,
}

impl LocalDialler {
    /// Prepares to dial `service`. That its certificate will not be checked is told in the log.
    pub(crate) fn new(
        service: LocalService,
        proxy_protocol: Option<ProxyProtocol>,
        clock: &Clock,
    ) -> Self {
        let tls = match &service.place {
            Place::Https { trust, name, .. } => {
                if *trust == LocalTrust::Anything {
                    warn!("the certificate of the local service {service} is not checked");
                }
                Some((Arc::new(client_tls(trust, clock)), name.clone()))
            }
            Place::Tcp(_) | Place::Unix(_) => None,
        };
        Self {
            service,
            tls,
            proxy_protocol,
        }
    }

    /// What is dialled.
    pub(crate) fn service(&self) -> &LocalService {
        &self.service
    }

    /// Connects, all within [`Timeouts::local_dial`]: the addresses of a name in a race, the PROXY
    /// header, the TLS handshake. Cancel safe.
    pub(crate) async fn dial(&self, caller: Caller<'_>) -> Result<AnyEnd, DialError> {
        let deadline = caller.timeouts.local_dial;
        match timeout(deadline, self.connect(caller)).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError::Timeout {
                service: self.service.clone(),
                waited: deadline,
            }),
        }
    }

    async fn connect(&self, caller: Caller<'_>) -> Result<AnyEnd, DialError> {
        let (service, refused) = (&self.service, |source| self.refused(source));
        let introduction = self
            .proxy_protocol
            .map(|version| version.header(caller.header, caller.alpn))
            .unwrap_or_default();
        let address = match &service.place {
            Place::Tcp(address) | Place::Https { address, .. } => address,
            Place::Unix(path) => {
                let mut unix = unix(path).await.map_err(refused)?;
                unix.write_all(&introduction).await.map_err(refused)?;
                return Ok(Box::new(DuplexEnd::new(unix)));
            }
        };
        let mut tcp = tcp(address, caller).await.map_err(refused)?;
        tcp.write_all(&introduction).await.map_err(refused)?;
        let Some((tls, name)) = &self.tls else {
            return Ok(Box::new(DuplexEnd::new(tcp)));
        };
        // What was agreed with the visitor, and else nothing: the bytes behind it are the same.
        let alpn = caller.alpn.map(<[u8]>::to_vec).into_iter().collect();
        let connector = TlsConnector::from(tls.clone());
        let handshake = connector.with_alpn(alpn).connect(name.clone(), tcp);
        let tls = handshake.await.map_err(|source| DialError::Tls {
            service: service.clone(),
            hint: hint(&source, service),
            source,
        })?;
        Ok(Box::new(DuplexEnd::new(TlsStream::from(tls))))
    }

    fn refused(&self, source: io::Error) -> DialError {
        let service = self.service.clone();
        DialError::Refused { service, source }
    }
}

/// The first of the addresses that takes the connection.
async fn tcp(address: &Address, caller: Caller<'_>) -> io::Result<TcpStream> {
    let addresses = caller.resolver.resolve(&address.host, address.port).await?;
    let attempts = addresses.into_iter().map(connect);
    let raced = race(attempts, caller.timeouts.head_start).await;
    raced.map_err(|failures| {
        let last = failures.into_iter().last();
        last.unwrap_or_else(|| io::ErrorKind::NotFound.into())
    })
}

/// TLS 1.2 and 1.3. Sessions are resumed, which saves the service a signature; nothing is sent
/// before the handshake is over.
fn client_tls(trust: &LocalTrust, clock: &Clock) -> ClientConfig {
    ClientConfig::builder_with_details(tls::provider(), Arc::new(clock.clone()))
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for both versions")
        .dangerous()
        .with_custom_certificate_verifier(trust.verifier())
        .with_no_client_auth()
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(UNIX_RETRY).await,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests;
