//! A connection through a SOCKS5 proxy (RFC 1928), by a user name and a password if there are any
//! (RFC 1929).

use std::io::ErrorKind::UnexpectedEof;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error, IntoTargetAddr as _};

use super::credentials::Credentials;
use super::failure::ProxyError;
use super::target::Target;

/// Asks the proxy at the other end of `proxy` for a connection to `target`; then `proxy` is that
/// connection, and not a byte of it has been read. The caller sets the deadline.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    proxy: &mut S,
    target: &Target,
    credentials: Option<&Credentials>,
) -> Result<(), ProxyError> {
    let failed = |error| failure(error, credentials.is_some());
    let target = match target {
        Target::Address(address) => (*address).into_target_addr(),
        Target::Name { host, port } => (host.as_str(), *port).into_target_addr(),
    };
    let target = target.map_err(failed)?;
    let connected = match credentials {
        None => Socks5Stream::connect_with_socket(proxy, target).await,
        Some(known) => {
            let (user, password) = (known.user(), known.password());
            Socks5Stream::connect_with_password_and_socket(proxy, target, user, password).await
        }
    };
    connected.map(drop).map_err(failed)
}

/// The reply codes (RFC 1928, 6) are the proxy's refusal; the rest is no SOCKS.
fn failure(error: Error, has_credentials: bool) -> ProxyError {
    match error {
        Error::Io(error) if error.kind() == UnexpectedEof => ProxyError::Closed,
        Error::Io(error) => ProxyError::Broken(error),
        Error::NoAcceptableAuthMethods if has_credentials => {
            ProxyError::Authentication("it names none".to_owned())
        }
        Error::NoAcceptableAuthMethods | Error::AuthorizationRequired => {
            ProxyError::CredentialsWanted
        }
        Error::PasswordAuthFailure(_) => ProxyError::CredentialsRefused,
        Error::GeneralSocksServerFailure => refused("a failure of its own, or it finds no way"),
        Error::ConnectionNotAllowedByRuleset => refused("its rules do not allow it"),
        Error::NetworkUnreachable => refused("the relay's network is not reached"),
        Error::HostUnreachable => refused("the relay's host is not reached"),
        Error::ConnectionRefused => refused("nobody listens at the relay's port"),
        Error::TtlExpired => refused("the way to the relay is too long"),
        Error::CommandNotSupported => refused("it does not connect for anybody"),
        Error::AddressTypeNotSupported => {
            refused("it does not know this kind of address; try socks5:// or socks5h://")
        }
        Error::InvalidTargetAddress(why) => refused(why),
        _ => ProxyError::NotUnderstood("SOCKS5"),
    }
}

fn refused(why: &'static str) -> ProxyError {
    ProxyError::RefusedByCode(why)
}

#[cfg(test)]
mod tests;
