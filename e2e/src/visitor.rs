//! Visitors: TLS to the public port, or any bytes at all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Error};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::tls::{self, any_certificate::AnyCertificate};

use crate::poll::soon;

/// What the socket of a narrow visitor may hold, about the least that the kernel gives.
const NARROW_BYTES: u32 = 4096;

/// A visitor's connection after the handshake.
pub type Visitor = TlsStream<TcpStream>;

/// The TLS of an ordinary visitor who takes any certificate, offering these protocols.
pub fn tls_config(alpn: &[&[u8]]) -> Arc<ClientConfig> {
    tls_config_of(tls::provider(), alpn)
}

/// The same with another choice of algorithms.
pub fn tls_config_of(provider: Arc<CryptoProvider>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Visits `host` at `relay`.
pub async fn visit(relay: SocketAddr, host: &str) -> io::Result<Visitor> {
    visit_with(relay, host, tls_config(&[b"http/1.1"])).await
}

/// Visits `host` at `relay` with this TLS.
pub async fn visit_with(
    relay: SocketAddr,
    host: &str,
    tls: Arc<ClientConfig>,
) -> io::Result<Visitor> {
    let tcp = TcpStream::connect(relay).await?;
    tcp.set_nodelay(true)?;
    handshake(tcp, host, tls).await
}

/// Visits `host` at `relay` over a connection whose receiving end holds next to nothing.
pub async fn narrow_visit(relay: SocketAddr, host: &str) -> io::Result<Visitor> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(NARROW_BYTES)?;
    let tcp = socket.connect(relay).await?;
    handshake(tcp, host, tls_config(&[b"http/1.1"])).await
}

/// The TLS handshake alone, over a connection that the story has prepared.
pub async fn handshake(tcp: TcpStream, host: &str, tls: Arc<ClientConfig>) -> io::Result<Visitor> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    soon("the handshake", TlsConnector::from(tls).connect(name, tcp)).await
}

/// One GET on a connection of its own: the status line and the body.
pub async fn get(relay: SocketAddr, host: &str) -> io::Result<String> {
    let mut stream = visit(relay, host).await?;
    let body = get_on(&mut stream, host).await?;
    // As browsers do: who just goes is waited for.
    let _ = stream.shutdown().await;
    Ok(body)
}

/// One GET on a connection that stays open: the body, which must come with a length.
pub async fn get_on<S>(stream: &mut TlsStream<S>, host: &str) -> io::Result<String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    soon("the answer", read_answer(stream)).await
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut answer = Vec::new();
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        let text = str::from_utf8(&answer).map_err(|_| invalid())?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.and_then(|n| n.parse().ok()).ok_or_else(invalid)?;
            if body.len() >= length {
                return Ok(body.to_owned());
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Sends `bytes` to the public port and gives all that comes back until the relay closes.
pub async fn say(relay: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(relay).await?;
    tcp.write_all(bytes).await?;
    let mut answer = Vec::new();
    soon("the relay closes", tcp.read_to_end(&mut answer)).await?;
    Ok(answer)
}

/// The alert in a refused handshake's error, if it is one.
pub fn alert(error: &io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The key that a certificate is for.
pub fn key_in(certificate: &CertificateDer<'_>) -> KeyFingerprint {
    KeyFingerprint::of_certificate(certificate).expect("a certificate")
}

/// The certificate that the visitor was shown.
pub fn certificate(stream: &Visitor) -> CertificateDer<'static> {
    let chain = stream
        .get_ref()
        .1
        .peer_certificates()
        .expect("the handshake is complete");
    chain[0].clone().into_owned()
}
