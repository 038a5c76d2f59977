//! What a host name shows to whoever comes from outside: the certificate, without a judgement about it.
//!
//! It is how we see, before an authority is asked to come, that its question would get to us, and how anybody
//! sees who answers for an agent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Error};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dial::Dial;
use crate::hostname::Hostname;
use crate::tls::{self, any_certificate::AnyCertificate};

/// For the connection and the handshake together: an authority has little more patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotShown {
    /// Nobody is there, or nobody answers in time.
    #[error("{host}:{port} is not reached from here: {source}")]
    Unreachable {
        /// The name.
        host: Hostname,
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Somebody is there, and does not show a certificate.
    #[error("{host}:{port} does not answer with TLS as expected: {source}")]
    NoTls {
        /// The name.
        host: Hostname,
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

impl NotShown {
    /// Whether it may be the way from here alone that is wrong: packets vanish, as they do in networks that
    /// do not lead to their own public address, or a proxy on the way gives no connection.
    pub fn may_be_ours(&self) -> bool {
        let no_way = [
            io::ErrorKind::TimedOut,
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
        ];
        match self {
            Self::Unreachable { source, .. } => no_way.contains(&source.kind()),
            Self::NoTls { .. } => false,
        }
    }
}

/// The certificate that `port` of `host` shows to who offers these protocols, and whose key has signed the
/// handshake, be it TLS 1.3 or 1.2. Nobody vouches for it. An answer takes 10 s at most; dropping the future gives it up.
pub async fn shown(
    dial: &dyn Dial,
    host: &Hostname,
    port: u16,
    alpn: &[&[u8]],
) -> Result<CertificateDer<'static>, NotShown> {
    let unreachable = |source| NotShown::Unreachable {
        host: host.clone(),
        port,
        source,
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let dialling = timeout(TIMEOUT, dial.dial(host.as_str(), port)).await;
    let tcp = dialling
        .map_err(|_| unreachable(late()))?
        .map_err(unreachable)?;
    let no_tls = |source| NotShown::NoTls {
        host: host.clone(),
        port,
        source,
    };
    let handshake = async {
        let name = ServerName::try_from(host.to_string()).map_err(io::Error::other)?;
        let config = config(alpn).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
    };
    let shaken = timeout(TIMEOUT, handshake).await;
    let stream = shaken.map_err(|_| no_tls(late()))?.map_err(no_tls)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let leaf = certificates.and_then(|chain| chain.first());
    let none = || no_tls(io::Error::other("no certificate"));
    Ok(leaf.ok_or_else(none)?.clone().into_owned())
}

fn config(alpn: &[&[u8]]) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn only_where_nothing_leads_there_from_here_the_authority_may_do_better() {
        let unreachable = |kind: ErrorKind| NotShown::Unreachable {
            host: "a.example".parse().expect("a name"),
            port: 443,
            source: kind.into(),
        };
        for ours in [
            ErrorKind::TimedOut,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
        ] {
            assert!(unreachable(ours).may_be_ours(), "{ours}");
        }
        for not in [
            ErrorKind::ConnectionRefused,
            ErrorKind::NotFound,
            ErrorKind::Other,
        ] {
            assert!(!unreachable(not).may_be_ours(), "{not}");
        }
    }
}
