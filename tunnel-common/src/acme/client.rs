//! HTTPS to an authority: what instant-acme's own client does, with our TLS provider, through whatever it
//! takes to get there, with bounds, and with a memory of the pause that the authority asked for.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::authority::Authority;
use super::dial::Dial;
use crate::clock::Clock;
use crate::tls;

/// For one request, from the connection to the end of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer: a chain has a few KiB.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// The longest pause for which an authority may ask: their limits are of a week.
const MAX_PAUSE: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// The port of a URL without one.
const HTTPS: u16 = 443;

/// The client of one authority. Clones share its connections and what it was told.
#[derive(Clone)]
pub(super) struct CaClient {
    http: Client<Connector, BodyWrapper<Bytes>>,
    pause: Arc<Mutex<Option<Duration>>>,
    clock: Clock,
}

impl CaClient {
    /// Connects to nobody before the first request.
    pub(super) fn new(authority: &Authority, clock: &Clock) -> Result<Self, rustls::Error> {
        let tls = ClientConfig::builder_with_details(tls::provider(), Arc::new(clock.clone()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authority.roots.clone())
            .with_no_client_auth();
        let connector = Connector {
            dial: authority.dial.clone(),
            tls: TlsConnector::from(Arc::new(tls)),
        };
        Ok(Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            pause: Arc::default(),
            clock: clock.clone(),
        })
    }

    /// The pause for which the authority asked with its last answer, if that was a refusal.
    pub(super) fn pause(&self) -> Option<Duration> {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_asked_to_pause(&self, pause: Option<Duration>) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }

    /// What the authority whose directory is at `url` calls itself in CAA records, if it says so (RFC 8555,
    /// 9.7.6).
    pub(super) async fn caa_identity(&self, url: &str) -> Option<String> {
        let request = Request::get(url).body(BodyWrapper::default()).ok()?;
        let mut answer = self.clone().ask(request).await.ok()?;
        let body = answer.body.into_bytes().await.ok()?;
        let directory: Value = serde_json::from_slice(&body).ok()?;
        let identity = directory.pointer("/meta/caaIdentities/0")?;
        identity.as_str().map(str::to_owned)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        self.is_asked_to_pause(None);
        let asking = async {
            let response = self.http.request(request).await.map_err(other)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(Error::Other)?.to_bytes();
            Ok::<_, Error>((parts, body))
        };
        let late = || other(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        let asked = timeout(REQUEST_TIMEOUT, asking).await;
        let (mut parts, body) = asked.map_err(|_| late())??;
        if let Some(pause) = retry_after(&parts.headers, self.clock.now()) {
            // The library adds it to a date, and would go beyond the calendar.
            parts.headers.insert(RETRY_AFTER, pause.as_secs().into());
            if parts.status.is_client_error() || parts.status.is_server_error() {
                self.is_asked_to_pause(Some(pause));
            }
        }
        Ok(Response::from_parts(parts, Full::new(body)).into())
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().ask(request))
    }
}

impl fmt::Debug for CaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaClient")
    }
}

fn other(error: impl StdError + Send + Sync + 'static) -> Error {
    // The outermost of hyper's errors says "client error" and nothing else.
    let mut innermost: &(dyn StdError + 'static) = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    Error::Other(innermost.to_string().into())
}

/// The pause in the header, seconds or a date (RFC 9110, 10.2.3), up to [`MAX_PAUSE`]. A date that has passed
/// is no pause.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

/// Makes connections for the client.
#[derive(Clone)]
struct Connector {
    dial: Arc<dyn Dial>,
    tls: TlsConnector,
}

impl Service<Uri> for Connector {
    type Response = Secure;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { dial, tls } = self.clone();
        Box::pin(async move {
            if uri.scheme_str() != Some("https") {
                return Err(io::Error::other("the authority names a URL without TLS"));
            }
            let host = uri.host().unwrap_or_default();
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            let tcp = dial.dial(&host, uri.port_u16().unwrap_or(HTTPS)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Ok(Secure(TokioIo::new(tls.connect(name, tcp).await?)))
        })
    }
}

/// A connection to the authority.
struct Secure(TokioIo<TlsStream<TcpStream>>);

impl Connection for Secure {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_pause_is_a_number_of_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let pause = |text: &'static str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_static(text))];
            retry_after(&headers.into_iter().collect(), now)
        };
        assert_eq!(pause("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            pause("Sun, 06 Nov 1994 08:50:37 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:36 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("soon"), None);
        assert_eq!(pause("18446744073709551615"), Some(MAX_PAUSE));
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
