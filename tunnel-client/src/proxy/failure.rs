//! Why a proxy gave no connection.

use std::io;
use std::net::SocketAddr;

use tunnel_common::escape::Escaped;

use super::credentials::VARIABLE;

/// Why a proxy gave no connection. The text is a clause about "it", the proxy; what the proxy said is
/// escaped and bounded, and no credentials are in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Its name has no address.
    #[error("its name can not be resolved: {0}")]
    Resolve(#[source] io::Error),
    /// No TCP connection to it.
    #[error("it is not reached at {0}: {1}")]
    Unreachable(SocketAddr, #[source] io::Error),
    /// It took the connection, and did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// The connection to it broke.
    #[error("the connection to it broke: {0}")]
    Broken(#[source] io::Error),
    /// It closed before it had answered.
    #[error("it closes the connection without an answer")]
    Closed,
    /// What it says is not its protocol.
    #[error("it does not speak {0}")]
    NotUnderstood(&'static str),
    /// Its answer never ends.
    #[error("the header of its answer has more than {0} bytes")]
    TooLong(usize),
    /// It wants credentials, and there are none.
    #[error(
        "it wants a user name and a password; give them by --proxy-credentials FILE or the variable \
         {VARIABLE}"
    )]
    CredentialsWanted,
    /// It does not take the credentials that there are.
    #[error(
        "it does not take this user name and password; mend them where they are: the file of \
         --proxy-credentials, else the variable {VARIABLE}, else the proxy's URL in the environment"
    )]
    CredentialsRefused,
    /// It wants an authentication that we do not know.
    #[error(
        "it wants an authentication that is not supported ({0}), not a user name and a password"
    )]
    Authentication(String),
    /// It refuses, in its own words.
    #[error("it refuses: {}", Escaped(.0))]
    Refused(String),
    /// It refuses, by a code that has a meaning.
    #[error("it refuses: {0}")]
    RefusedByCode(&'static str),
}

impl ProxyError {
    /// What it is to somebody who knows only the kinds of I/O errors: from here nothing leads there, be it that
    /// nobody answers or that the proxy gives no connection. About the host itself it says nothing.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Silent => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::HostUnreachable,
        }
    }

    /// Whether it would end the same way for any other port: the proxy is not there, or does not want
    /// us. Wrong credentials are not to be shown more often than needed: accounts are locked for that.
    pub fn is_about_proxy(&self) -> bool {
        matches!(
            self,
            Self::Resolve(_)
                | Self::Unreachable(..)
                | Self::CredentialsWanted
                | Self::CredentialsRefused
                | Self::Authentication(_)
        )
    }
}
