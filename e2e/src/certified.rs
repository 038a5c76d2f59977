//! An agent in this process that gets its certificates from an authority, and what visitors make of them.
//!
//! ```text
//! authority ── comes to look ──▶ relay's second port ──▶ agent
//!     ▲                                                    │
//!     └──────────────── orders ────────────────────────────┘
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tunnel_client::config::{Certificates, Config as AgentConfig, Issued};
use tunnel_common::acme::authority::Authority;
use tunnel_common::acme::ca::Acme;
use tunnel_common::acme::credentials::CredentialsFile;
use tunnel_common::acme::dial::{Dial, Dialling, Direct};
use tunnel_common::acme::state::CertificateState;
use tunnel_server::config::{Config as RelayConfig, Suffixes};

use crate::mock_ca::MockCa;
use crate::pebble::Pebble;
use crate::process::tool;
use crate::relay::{Relay, relay_with};
use crate::visitor::{self, tls_config};

/// The domain of the relays here: a name that is in no DNS.
pub const DOMAIN: &str = "tunnel.test";

/// A relay for [`DOMAIN`] to which authorities can come.
pub async fn validated_relay() -> Relay {
    relay_with(is_validated).await
}

/// Makes a relay one to which authorities can come.
pub fn is_validated(config: &mut RelayConfig) {
    config.suffixes = Suffixes::These(vec![DOMAIN.parse().expect("a host name")]);
    config.alpn_port = Some(0);
}

/// Connections to whatever name lead to one address; to an address, there.
#[derive(Clone, Copy, Debug)]
pub struct Towards(pub SocketAddr);

impl Dial for Towards {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        match host.parse::<std::net::IpAddr>() {
            Ok(_) => Direct.dial(host, port),
            Err(_) => Box::pin(TcpStream::connect(self.0)),
        }
    }
}

/// An authority of a story: where its directory is, and who vouches for it.
#[derive(Clone, Debug)]
pub struct Ca {
    /// The URL.
    pub directory: String,
    /// The root of its API, in a file.
    pub root: PathBuf,
}

impl From<&Pebble> for Ca {
    fn from(pebble: &Pebble) -> Self {
        Self {
            directory: pebble.directory(),
            root: pebble.ca_root().to_owned(),
        }
    }
}

impl From<&MockCa> for Ca {
    fn from(mock: &MockCa) -> Self {
        Self {
            directory: mock.directory(),
            root: mock.ca_root().to_owned(),
        }
    }
}

/// How an agent orders from `ca`, which finds it through `relay`; files are in `folder`.
pub fn issued(ca: impl Into<Ca>, relay: &Relay, folder: &Path) -> Issued {
    let ca = ca.into();
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(&ca.root).expect("PEM");
    roots.add(root).expect("an authority");
    let alpn = relay.alpn.expect("authorities can come");
    let authority = Authority {
        directory: ca.directory.parse().expect("a URL"),
        email: Some("owner@example.com".to_owned()),
        roots: Arc::new(roots),
        external_account: None,
        profile: None,
        dial: Arc::new(Towards(alpn)),
    };
    Issued {
        acme: Acme {
            authority,
            credentials: CredentialsFile::new(folder.join("acme_credentials.json")),
            validation_port: alpn.port(),
            clock: tunnel_common::clock::Clock::system(),
        },
        file: folder.join("acme_cert.pem"),
        key: None,
        renew_days: None,
        any_name: true,
    }
}

/// Makes an agent order so.
pub fn orders(config: &mut AgentConfig, issued: Issued) {
    config.certificates = Certificates::Issued(Box::new(issued));
}

/// Whether an authority vouches for a name.
pub fn is_certified(state: &CertificateState) -> bool {
    matches!(state, CertificateState::Certified { .. })
}

/// What curl gets from `host` at `relay` if it believes nobody but the authorities in the file `roots`.
pub async fn curl(relay: &Relay, host: &str, roots: &Path) -> String {
    let (port, ip) = (relay.public.port(), relay.public.ip());
    let resolve = format!("{host}:{port}:{ip}");
    let (roots, url) = (
        roots.to_str().expect("UTF-8"),
        format!("https://{host}:{port}/"),
    );
    tool(
        "curl",
        &["-sS", "--cacert", roots, "--resolve", &resolve, &url],
    )
    .await
}

/// What somebody is shown who comes to `alpn` as an authority does, asking for `host`.
pub async fn shown_to_authorities(
    alpn: SocketAddr,
    host: &str,
) -> std::io::Result<CertificateDer<'static>> {
    let tls = tls_config(&[b"acme-tls/1"]);
    let visitor = visitor::visit_with(alpn, host, tls).await?;
    Ok(visitor::certificate(&visitor))
}
