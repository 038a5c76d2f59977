//! A client of ACME servers: instant-acme, over HTTPS that is made here.

use std::error;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{
    Account, AccountBuilder, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient,
    NewAccount, Order, OrderStatus, RetryPolicy,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tunnel_common::tls;

/// How everybody here can be reached.
pub(crate) const CONTACT: &str = "mailto:story@example.test";

/// The first step to an account at a server whose certificate has this root.
pub(crate) fn builder(root: &Path) -> AccountBuilder {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(root).expect("PEM");
    roots.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    Account::builder_with_http(Box::new(Https { tls }))
}

/// A new account.
pub(crate) async fn account(directory: String, root: &Path) -> Result<Account, Error> {
    let new = NewAccount {
        contact: &[CONTACT],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, _) = builder(root).create(&new, directory, None).await?;
    Ok(account)
}

/// Says that all challenges may be looked at, and waits for the outcome.
pub(crate) async fn prove(order: &mut Order) -> Result<OrderStatus, Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.expect("a challenge");
        challenge.set_ready().await?;
    }
    order.poll_ready(&soon()).await
}

/// Asks again and again.
pub(crate) fn soon() -> RetryPolicy {
    RetryPolicy::new().initial_delay(Duration::from_millis(5))
}

/// A connection for each request.
struct Https {
    tls: TlsConnector,
}

type Answering = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Https {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answering {
        let sent = send(self.tls.clone(), request);
        Box::pin(async move { sent.await.map_err(Error::Other) })
    }
}

async fn send(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Box<dyn error::Error + Send + Sync>> {
    let at = request.uri().authority().expect("a URL").clone();
    let path = request.uri().path().parse()?;
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    headers.insert(header::HOST, at.as_str().parse()?);
    let name = ServerName::try_from(at.host().to_owned())?;
    let tcp = TcpStream::connect(at.as_str()).await?;
    let stream = TokioIo::new(tls.connect(name, tcp).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let mut running = JoinSet::new();
    running.spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let body = Box::new(body);
    Ok(BytesResponse { parts, body })
}
