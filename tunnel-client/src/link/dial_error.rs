//! Why the relay was not reached, and whether another way may lead to it.

use std::io;
use std::net::SocketAddr;

use quinn::ConnectionError;
use tunnel_common::quic::describe;

use super::known_relays::KnownRelaysError;
use super::verifier::{VerifierError, WrongKey};

/// Why the relay was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DialError {
    /// Its name has no address.
    #[error("the relay's address could not be found: {0}")]
    Resolve(#[source] io::Error),
    /// No UDP socket could be had.
    #[error("no UDP socket for {0}: {1}")]
    Socket(SocketAddr, #[source] io::Error),
    /// The address can not be dialled.
    #[error("{0} can not be dialled: {1}")]
    Connect(SocketAddr, #[source] quinn::ConnectError),
    /// Nobody answered, or not as a relay should.
    #[error("no tunnel to {0}: {why}", why = describe(.1))]
    Handshake(SocketAddr, #[source] ConnectionError),
    /// Whom to trust can not be found out.
    #[error(transparent)]
    KnownRelays(#[from] KnownRelaysError),
    /// TLS can not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another process has believed another key meanwhile.
    #[error(transparent)]
    WrongKey(Box<WrongKey>),
    /// Nobody answered at all.
    #[error("{0} does not answer (UDP)")]
    Silence(SocketAddr),
    /// No tunnel over TCP.
    #[error("{0} (TCP): {1}")]
    Tcp(SocketAddr, #[source] io::Error),
    /// No way led to it.
    #[error("the relay is not reached: {0}. Is it running, and does a firewall pass it?")]
    NoWay(String),
}

impl DialError {
    /// Whether somebody else than a relay that we trust may have swallowed or answered our packets, so
    /// that another way may lead to it.
    pub(super) fn may_be_passed_by(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Socket(..) | Self::Connect(..) => true,
            Self::Handshake(_, error) => !matches!(
                error,
                ConnectionError::TransportError(_)
                    | ConnectionError::ConnectionClosed(_)
                    | ConnectionError::ApplicationClosed(_)
            ),
            _ => false,
        }
    }
}

/// Why no tunnel can be dialled with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// TLS refuses the configuration.
    #[error("TLS for the tunnel can not be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The trust rule can not be applied.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// A cipher that QUIC needs is missing.
    #[error("QUIC can not be set up: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}
