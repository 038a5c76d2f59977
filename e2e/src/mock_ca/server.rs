//! The authority as a story sees it, and the HTTPS under it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SingleCertAndKey;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tunnel_common::clock::Clock;
use tunnel_common::tls;

use super::rules::Rules;
use super::seen::{SeenCsr, SeenOrder, SeenRequest};
use super::service;
use super::state::State;
use crate::agent::new_key;
use crate::authority::{Authority, authority};
use crate::origin::{Origin, origin_on};
use crate::process;

type Shared = Arc<Mutex<State>>;

/// The authority. Dropping it ends it and all its connections.
#[derive(Debug)]
pub struct MockCa {
    state: Shared,
    ca_root: PathBuf,
    _folder: Arc<TempDir>,
    _serving: Origin,
}

/// Starts an authority by the machine's clock.
pub async fn mock_ca() -> MockCa {
    mock_ca_at(Clock::system()).await
}

/// Starts an authority by this clock: its certificates begin when it says so.
pub async fn mock_ca_at(clock: Clock) -> MockCa {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (authority, folder) = (authority(), process::folder());
    let ca_root = folder.path().join("ca.pem");
    fs::write(&ca_root, authority.pem()).expect("writes");
    let tls = TlsAcceptor::from(Arc::new(tls_config(&authority)));
    let state = State::new(format!("https://{address}"), clock, authority);
    let state = Arc::new(Mutex::new(state));
    let shared = state.clone();
    let serving = origin_on(listener, move |tcp| serve(tcp, tls.clone(), shared.clone()));
    MockCa {
        state,
        ca_root,
        _folder: folder,
        _serving: serving,
    }
}

fn tls_config(authority: &Authority) -> ServerConfig {
    let key = new_key();
    let certificate = authority.certificate(&key, &["localhost", "127.0.0.1"]);
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let chain = vec![certificate.der().clone()];
    let identity = tls::certified(chain, key).expect("they belong together");
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

async fn serve(tcp: TcpStream, tls: TlsAcceptor, state: Shared) {
    // A client may go at any time, and some stories have it not trust the authority.
    let Ok(stream) = tls.accept(tcp).await else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        let state = state.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let mut state = state.lock().expect("not poisoned");
            let answer = service::answer(&mut state, &head.method, head.uri.path(), &body);
            Ok::<_, hyper::Error>(answer)
        }
    });
    let connection = http1::Builder::new();
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl MockCa {
    /// Where clients begin.
    pub fn directory(&self) -> String {
        format!("{}/directory", self.state().base)
    }

    /// The root of all that it issues, and of its API's certificate, in PEM.
    pub fn root_pem(&self) -> String {
        self.state().authority.pem()
    }

    /// The same as a file.
    pub fn ca_root(&self) -> &Path {
        &self.ca_root
    }

    /// Changes how it behaves, from now on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().rules);
    }

    /// The orders that it took. A refused one is among the [`MockCa::requests`] only.
    pub fn orders(&self) -> Vec<SeenOrder> {
        self.state().seen_orders.clone()
    }

    /// How many accounts it has.
    pub fn accounts(&self) -> usize {
        self.state().accounts.len()
    }

    /// The contacts of each account.
    pub fn contacts(&self) -> Vec<Vec<String>> {
        let state = self.state();
        let contacts = state.accounts.iter().map(|each| each.contact.clone());
        contacts.collect()
    }

    /// The CSR of each certificate that it issued.
    pub fn csrs(&self) -> Vec<SeenCsr> {
        self.state().seen_csrs.clone()
    }

    /// All requests that it answered.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.state().seen_requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}
