//! How a user writes a local service.

use std::fmt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::str::FromStr;

use rustls::pki_types::ServerName;

use super::trust::LocalTrust;
use crate::host_port::{split_host_port, write_host_port};

/// Where a bare port is.
const DEFAULT_HOST: &str = "127.0.0.1";
/// The port of a URL that names none, without and with TLS.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// The longest abstract name: 108 bytes (unix(7)), of which one says that it is abstract.
const MAX_UNIX_BYTES: usize = 107;

/// What the agent publishes: a TCP address, with or without TLS, or a Unix socket.
///
/// It exists only by parsing. A name in it is resolved anew for each visit.
///
/// ```
/// use tunnel_client::local::LocalService;
/// for text in ["3000", "[::1]:80", "http://nas.lan", "https://nas.lan:8443", "unix:/run/web.sock"] {
///     assert!(text.parse::<LocalService>().is_ok());
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    pub(super) place: Place,
}

/// Where a local service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Address),
    Https {
        address: Address,
        name: ServerName<'static>,
        trust: LocalTrust,
    },
    /// The path in the file system, or an abstract name behind a zero byte.
    Unix(PathBuf),
}

/// A host, which is a name or an address literal without brackets, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Why a text is no [`LocalService`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadLocalService {
    /// None of the forms.
    #[error(
        "a local service is written as a port of 127.0.0.1, host:port, http://host[:port], \
         https://host[:port] or unix:path, an IPv6 address in [brackets]"
    )]
    Form,
    /// A URL of another kind.
    #[error(
        "the URL of a local service begins with http:// or https://; any other service is host:port"
    )]
    Scheme,
    /// A URL with a user or a password.
    #[error("the URL of a local service holds no user and no password: visitors send their own")]
    UserInfo,
    /// A URL that goes on behind its host.
    #[error("the URL of a local service ends with its host or port: visitors choose the path")]
    Path,
    /// No path of a socket.
    #[error("the path of a Unix socket has 1 to 107 bytes")]
    Unix,
}

impl LocalService {
    /// Whether the agent speaks TLS to it.
    pub fn is_https(&self) -> bool {
        matches!(self.place, Place::Https { .. })
    }

    /// The same, known by another rule. Without TLS there is nothing to be known, and no change.
    #[must_use]
    pub fn with_trust(mut self, rule: LocalTrust) -> Self {
        if let Place::Https { trust, .. } = &mut self.place {
            *trust = rule;
        }
        self
    }
}

impl FromStr for LocalService {
    type Err = BadLocalService;

    fn from_str(text: &str) -> Result<Self, BadLocalService> {
        let place = if let Some(path) = text.strip_prefix("unix:") {
            unix(path)?
        } else if let Some((scheme, rest)) = text.split_once("://") {
            url(scheme, rest)?
        } else {
            Place::Tcp(plain(text).ok_or(BadLocalService::Form)?)
        };
        Ok(Self { place })
    }
}

fn plain(text: &str) -> Option<Address> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let port = text.parse().ok().filter(|port| *port != 0)?;
        let host = DEFAULT_HOST.to_owned();
        return Some(Address { host, port });
    }
    let (host, port) = split_host_port(text)?;
    port.map(|port| Address { host, port })
}

/// A lone slash at the end says nothing, and is what browsers show.
fn url(scheme: &str, rest: &str) -> Result<Place, BadLocalService> {
    let [plain, tls] = ["http", "https"].map(|known| scheme.eq_ignore_ascii_case(known));
    if !plain && !tls {
        return Err(BadLocalService::Scheme);
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(BadLocalService::Path);
    }
    if authority.contains('@') {
        return Err(BadLocalService::UserInfo);
    }
    let (host, port) = split_host_port(authority).ok_or(BadLocalService::Form)?;
    let port = port.unwrap_or(DEFAULT_PORTS[usize::from(tls)]);
    let address = Address { host, port };
    if plain {
        return Ok(Place::Tcp(address));
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|_| BadLocalService::Form)?;
    Ok(Place::Https {
        address,
        name,
        trust: LocalTrust::default(),
    })
}

/// `@name` is an abstract name, which has no file. One that does not fit a socket's address is
/// refused here, and not at each visit.
fn unix(path: &str) -> Result<Place, BadLocalService> {
    let (path, fits) = match path.strip_prefix('@') {
        Some(name) => (
            format!("\0{name}"),
            (1..=MAX_UNIX_BYTES).contains(&name.len()),
        ),
        None => (
            path.to_owned(),
            !path.is_empty() && UnixAddr::from_pathname(path).is_ok(),
        ),
    };
    if fits {
        Ok(Place::Unix(path.into()))
    } else {
        Err(BadLocalService::Unix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => address.fmt(f),
            Place::Https { address, .. } => write!(f, "https://{address}"),
            Place::Unix(path) => {
                let path = path.to_string_lossy();
                write!(f, "unix:{}", path.replacen('\0', "@", 1))
            }
        }
    }
}

#[cfg(test)]
mod tests;
