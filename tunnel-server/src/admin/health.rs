//! Whether the relay runs, and whether visitors should be sent to it: two pages for supervisors and
//! load balancers.
//!
//! `/healthz` is 200 as long as the relay runs. `/readyz` is 200 until the relay drains, then 503. Each
//! connection gets one answer.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use crate::state::State;

/// Connections at one time: some probes, and no crowd.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// For a request's headers.
const HEADERS: Duration = Duration::from_secs(1);
/// For a request and its answer in all.
const CONNECTION: Duration = Duration::from_secs(2);
/// Bytes of one request's headers; the least that hyper can be held to.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// Answers one request, and closes.
pub(crate) async fn serve(tcp: TcpStream, address: SocketAddr, state: Arc<State>) {
    let service = service_fn(|request: Request<_>| {
        let path = request.uri().path();
        let page = page(request.method(), path, state.drain.has_begun());
        ready(Ok::<_, Infallible>(page))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), service);
    let answering = timeout(CONNECTION, connection);
    match state.shutdown.run_until_cancelled(answering).await {
        Some(Ok(Ok(()))) | None => {}
        Some(Ok(Err(error))) => debug!(%address, "nobody was told about our health: {error}"),
        Some(Err(_)) => debug!(%address, "nobody was told about our health in time"),
    }
}

fn page(method: &Method, path: &str, is_draining: bool) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/healthz" | "/readyz" if !matches!(*method, Method::GET | Method::HEAD) => {
            (StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n")
        }
        "/healthz" => (StatusCode::OK, "ok\n"),
        "/readyz" if is_draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::NOT_FOUND, "/healthz or /readyz\n"),
    };
    let mut page = Response::new(Full::from(text));
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(CONTENT_TYPE, "text/plain".parse().expect("a value"));
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("a value"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, "GET, HEAD".parse().expect("a value"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_drains_is_alive_but_not_ready() {
        let status = |path, is_draining| page(&Method::GET, path, is_draining).status().as_u16();
        assert_eq!(
            (status("/healthz", false), status("/readyz", false)),
            (200, 200)
        );
        assert_eq!(
            (status("/healthz", true), status("/readyz", true)),
            (200, 503)
        );
        assert_eq!(status("/", false), 404);
        let posted = page(&Method::POST, "/readyz", false);
        assert_eq!(posted.status().as_u16(), 405);
        assert_eq!(page(&Method::HEAD, "/readyz", true).status().as_u16(), 503);
    }
}
