//! A proxy, as users write it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};

use super::credentials::{BadCredentials, Credentials};
use super::failure::ProxyError;
use super::target::Target;
use super::{http_connect, socks5};
use crate::host_port::{split_host_port, write_host_port};

/// Where SOCKS proxies listen (RFC 1928, 3).
const SOCKS_PORT: u16 = 1080;
/// The longest scheme that an error repeats: the rest of a text may be a password.
const MAX_SHOWN_SCHEME_BYTES: usize = 16;

/// A proxy towards the relay. Neither [`Debug`] nor [`Display`](fmt::Display) shows its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundProxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// CONNECT; the proxy resolves the relay's name.
    Http,
    /// SOCKS5; we resolve the relay's name.
    Socks5,
    /// SOCKS5; the proxy resolves the relay's name.
    Socks5h,
}

/// Why a text is no [`OutboundProxy`]. The text itself, which may have a password, is not told.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadProxy {
    /// Another kind of proxy.
    #[error(
        "a proxy of the kind {0}:// is not supported; http://, socks5:// and socks5h:// are, and none \
         for no proxy"
    )]
    Scheme(String),
    /// No host, or no port that there is.
    #[error(
        "a proxy is written http://host:port, socks5://host:port or socks5h://host:port, an IPv6 \
         address in [brackets]; a port is a number from 1 to 65535"
    )]
    Form,
    /// Programs do not agree about the port of an HTTP proxy without one.
    #[error("the proxy's port is missing: write http://host:port")]
    NoPort,
    /// Something stands behind the port.
    #[error(
        "nothing may stand behind a proxy's port; in a user name or a password write / as %2F, ? as \
         %3F and # as %23"
    )]
    Behind,
    /// The user name or the password are not text in UTF-8.
    #[error("the proxy's user name or password is not UTF-8 when it is percent-decoded")]
    NotText,
    /// The user name or the password can not be.
    #[error("the proxy's credentials: {0}")]
    Credentials(#[from] BadCredentials),
    /// SOCKS can not carry an empty password (RFC 1929, 2).
    #[error("a SOCKS proxy takes no empty password")]
    EmptyPassword,
}

impl OutboundProxy {
    /// Its host: a name, or an address literal without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is the proxy that finds the relay's address, not we.
    pub fn resolves(&self) -> bool {
        self.kind != Kind::Socks5
    }

    /// Whether it comes with credentials.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// The same proxy with these credentials instead of its own.
    pub fn with_credentials(self, credentials: Credentials) -> Result<Self, BadProxy> {
        if self.kind != Kind::Http && credentials.password().is_empty() {
            return Err(BadProxy::EmptyPassword);
        }
        Ok(Self {
            credentials: Some(credentials),
            ..self
        })
    }

    /// Asks the proxy at the other end of `stream` for a connection to `target`; then `stream` is that
    /// connection, and not a byte of it has been read. The caller sets the deadline.
    ///
    /// A stream whose future failed or was dropped is good for nothing but being dropped.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &Target,
    ) -> Result<(), ProxyError> {
        let credentials = self.credentials.as_ref();
        match self.kind {
            Kind::Http => http_connect::connect(stream, target, credentials).await,
            Kind::Socks5 | Kind::Socks5h => socks5::connect(stream, target, credentials).await,
        }
    }
}

impl Kind {
    fn parse(scheme: &str) -> Result<Self, BadProxy> {
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "http" => Ok(Self::Http),
            "socks5" => Ok(Self::Socks5),
            "socks5h" => Ok(Self::Socks5h),
            _ if is_scheme(&scheme) => Err(BadProxy::Scheme(scheme)),
            _ => Err(BadProxy::Form),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    (1..=MAX_SHOWN_SCHEME_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `[scheme://][user:password@]host[:port][/]`; without a scheme it is an HTTP proxy. The user name
/// and the password are percent-decoded.
impl FromStr for OutboundProxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let (kind, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Kind::parse(scheme)?, rest),
            None => (Kind::Http, text),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        if !matches!(behind, "" | "/") {
            return Err(BadProxy::Behind);
        }
        let (user_info, address) = match authority.rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority),
        };
        let (host, port) = split_host_port(address).ok_or(BadProxy::Form)?;
        let port = match (port, kind) {
            (Some(port), _) => port,
            (None, Kind::Http) => return Err(BadProxy::NoPort),
            (None, Kind::Socks5 | Kind::Socks5h) => SOCKS_PORT,
        };
        let proxy = Self {
            kind,
            host,
            port,
            credentials: None,
        };
        match user_info {
            Some(user_info) => proxy.with_credentials(decode(user_info)?),
            None => Ok(proxy),
        }
    }
}

/// What stands before the `@` of a URL.
fn decode(user_info: &str) -> Result<Credentials, BadProxy> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decoded = |part| percent_decode_str(part).decode_utf8();
    match (decoded(user), decoded(password)) {
        (Ok(user), Ok(password)) => Ok(Credentials::new(&user, &password)?),
        _ => Err(BadProxy::NotText),
    }
}

/// The URL without credentials.
impl fmt::Display for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Http => "http://",
            Kind::Socks5 => "socks5://",
            Kind::Socks5h => "socks5h://",
        })?;
        write_host_port(f, &self.host, self.port)
    }
}

#[cfg(test)]
mod tests;
