//! Why the relay was not reached, and whether another way may lead to it.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use quinn::ConnectionError;
use tokio::task::JoinError;
use tunnel_common::quic::describe;

use super::control::ControlFailure;
use super::known_relays::KnownRelaysError;
use super::policy::Way;
use super::verifier::{VerifierError, WrongKey};
use crate::proxy::failure::ProxyError;
use crate::proxy::outbound::OutboundProxy;
use crate::proxy::target::Target;

/// The alerts by which we refuse a certificate (RFC 8446, 6.2), as QUIC numbers them (RFC 9001, 4.8).
const CERTIFICATE_ALERTS: RangeInclusive<u64> = 0x100 + 42..=0x100 + 51;

/// How much a failure tells about the relay; of several, the one that tells most is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nobody answered.
    Silence,
    /// Somebody or something refused.
    Refusal,
    /// Somebody answered, whom we do not trust.
    Trust,
}

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
    /// It takes nobody more for the moment.
    #[error("the relay at {0} is busy: more agents come than it lets in at once")]
    Busy(SocketAddr),
    /// Whom to trust can not be found out.
    #[error(transparent)]
    KnownRelays(#[from] KnownRelaysError),
    /// TLS can not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another process has believed another key meanwhile.
    #[error(transparent)]
    WrongKey(Box<WrongKey>),
    /// It shows another key than it should.
    #[error("no tunnel to {0}: {1}")]
    Untrusted(Target, #[source] Box<WrongKey>),
    /// No authority vouches for it.
    #[error(
        "{0}. If it is yours, give its key with --server-fingerprint, its authority with --server-ca, \
         or believe it on first sight with --trust-on-first-use"
    )]
    NotVouchedFor(#[source] Box<Self>),
    /// A thread of ours failed.
    #[error("the file of known relays can not be asked: {0}")]
    Thread(#[from] JoinError),
    /// Nobody answered at all.
    #[error("{0} does not answer (UDP)")]
    Silence(SocketAddr),
    /// No tunnel over TCP.
    #[error("{0} (TCP): {1}")]
    Tcp(Target, #[source] io::Error),
    /// It answered, but did not welcome us.
    #[error(transparent)]
    Greeting(#[from] ControlFailure),
    /// The proxy gave no connection.
    #[error("for {0} {1}")]
    Proxy(Target, #[source] ProxyError),
    /// Its name has no address here, and the proxy does not look it up.
    #[error("the relay's address could not be found: {0}; with socks5h:// the proxy looks for it")]
    ResolveForProxy(#[source] io::Error),
    /// No way through the proxy led to it.
    #[error("the relay is not reached through the proxy {proxy}: {why}")]
    NoWayThroughProxy {
        /// The proxy, without credentials.
        proxy: String,
        /// What became of each way.
        why: String,
        /// Whether the proxy did not take our credentials.
        are_credentials_refused: bool,
    },
    /// No way led to it.
    #[error("the relay is not reached: {0}. Is it running, and does a firewall pass it?")]
    NoWay(String),
}

impl DialError {
    /// How much it tells.
    pub(super) fn weight(&self) -> Weight {
        match self {
            Self::Silence(_) | Self::Handshake(_, ConnectionError::TimedOut) => Weight::Silence,
            Self::Tcp(_, error) if error.kind() == io::ErrorKind::TimedOut => Weight::Silence,
            Self::Proxy(_, ProxyError::Silent) => Weight::Silence,
            Self::Untrusted(..) | Self::NotVouchedFor(_) | Self::WrongKey(_) | Self::Tls(_) => {
                Weight::Trust
            }
            Self::Handshake(_, ConnectionError::TransportError(_)) => Weight::Trust,
            Self::Tcp(..) if self.is_about_certificate() => Weight::Trust,
            _ => Weight::Refusal,
        }
    }

    /// Why `way` led nowhere, by what happened at each address. `Ok` if no other way can lead anywhere:
    /// the relay itself has answered, or somebody in its place whom we do not trust.
    pub(super) fn of_way(way: Way, failures: Vec<Self>) -> Result<Self, (Way, Self)> {
        let may_be_passed_by = match way {
            // More attempts are the last thing that a busy relay needs.
            Way::Quic if failures.iter().any(Self::is_busy) => false,
            Way::Quic => failures.is_empty() || failures.iter().any(Self::may_be_passed_by),
            Way::H2 => !failures
                .iter()
                .any(|failure| failure.is_refusal() || failure.ends_proxying()),
            // Who is at another port of that host may be anybody: its no is not the relay's.
            Way::H2At(_) => !failures.iter().any(Self::ends_proxying),
        };
        let failure = Self::of(failures);
        let failure = failure.unwrap_or_else(|| Self::Resolve(io::ErrorKind::NotFound.into()));
        if may_be_passed_by {
            Err((way, failure))
        } else {
            Ok(failure)
        }
    }

    /// Why no way led to the relay, by what happened on each.
    pub(super) fn of_ways(failures: Vec<(Way, Self)>) -> Self {
        let text = |(_, failure): &(Way, Self)| failure.to_string();
        let texts: Vec<_> = failures.iter().map(text).collect();
        let mut refusal = None;
        let mut own = vec![];
        for (way, failure) in failures {
            match way {
                Way::H2At(_) if failure.is_refusal() => refusal = Some(failure),
                // Another port of the relay's host may be a web server's: who is there proves nothing.
                Way::H2At(_) => {}
                Way::Quic | Way::H2 => own.push(failure),
            }
        }
        match (Self::of(own), refusal) {
            (Some(error), _) if error.weight() == Weight::Trust => error,
            (_, Some(refusal)) => refusal,
            (Some(error @ Self::Resolve(_)), _) => error,
            _ => Self::NoWay(texts.join("; ")),
        }
    }

    /// Whether it is the relay itself that refuses us.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Greeting(ControlFailure::Refused(_)))
    }

    /// Whether the relay is there, and has no time for us.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// Of several failures the one that tells most, of equals the last.
    pub(super) fn of(failures: Vec<Self>) -> Option<Self> {
        failures.into_iter().max_by_key(Self::weight)
    }

    /// Whether it was the relay's certificate that we refused.
    pub(super) fn is_about_certificate(&self) -> bool {
        match self {
            Self::Handshake(_, ConnectionError::TransportError(error)) => {
                CERTIFICATE_ALERTS.contains(&u64::from(error.code))
            }
            _ => matches!(
                self.tls_failure(),
                Some(rustls::Error::InvalidCertificate(_))
            ),
        }
    }

    fn tls_failure(&self) -> Option<&rustls::Error> {
        match self {
            Self::Tcp(_, error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    /// Whether no other port is worth asking the proxy for: it is not there, it does not want us, or
    /// we do not know what to ask for.
    fn ends_proxying(&self) -> bool {
        match self {
            Self::Proxy(_, error) => error.is_about_proxy(),
            Self::ResolveForProxy(_) => true,
            _ => false,
        }
    }

    /// The same, told of a dial through `proxy`.
    pub(super) fn through(self, proxy: &OutboundProxy) -> Self {
        let why = match self {
            Self::NoWay(ref why) => why.clone(),
            Self::Proxy(..) | Self::ResolveForProxy(_) => self.to_string(),
            other => return other,
        };
        let are_credentials_refused =
            matches!(self, Self::Proxy(_, ProxyError::CredentialsRefused));
        Self::NoWayThroughProxy {
            proxy: proxy.to_string(),
            why,
            are_credentials_refused,
        }
    }

    /// Whether somebody else than a relay that we trust may have swallowed or answered our packets, so
    /// that another way may lead to it.
    pub(super) fn may_be_passed_by(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Socket(..) | Self::Connect(..) => true,
            Self::Greeting(_) => !self.is_refusal(),
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
