//! `client demo`: everything in one process, on loopback, to be tried in a minute.
//!
//! The parts are the real ones and speak the real protocols; only the keys are thrown away at the
//! end.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tunnel_client::client::Client;
use tunnel_client::config::{Config, EndpointConfig, RelayConfig};
use tunnel_client::link::relay_trust::RelayTrust;
use tunnel_client::status::Status;
use tunnel_common::process::EndSignals;
use tunnel_common::{process, tls};
use tunnel_server::server::{BindError, Server};
use tunnel_server::{cert, config};

/// The port to show if it is free: the relay's usual one.
const PUBLIC_PORT: u16 = 8443;

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut signals = EndSignals::listen()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let local = listener.local_addr()?;
    let server = relay()?;
    let client = agent(&server, local)?;
    let public = *server
        .addresses()
        .public
        .first()
        .context("the relay has no public port")?;

    let shutdown = CancellationToken::new();
    let mut parts = JoinSet::new();
    let mut status = client.status();
    parts.spawn(serve_pages(listener));
    parts.spawn({
        let shutdown = shutdown.clone();
        async move { Ok(server.run(shutdown).await?) }
    });
    parts.spawn({
        let shutdown = shutdown.clone();
        async move { Ok(client.run(shutdown).await?) }
    });
    let told = async {
        let serving = status
            .wait_for(|status| *status != Status::Connecting)
            .await?;
        if let Status::Serving(published) = &*serving
            && let Some(url) = published.first().and_then(|endpoint| endpoint.urls.first())
        {
            writeln!(io::stdout(), "{}", introduction(url, public, local))?;
        }
        drop(serving);
        signals.asked().await;
        Ok(())
    };
    let outcome = tokio::select! {
        told = told => told,
        Some(ended) = parts.join_next() => ended.context("a part of the demo failed")?,
    };
    shutdown.cancel();
    outcome
}

/// A relay with a key of its own, at the usual public port if that is free.
fn relay() -> anyhow::Result<Server> {
    let identity = cert::self_signed(&tls::generate_key()?, &["localhost".to_owned()])?;
    let bind = |pub_port| {
        Server::bind(&config::Config {
            bind_addr: Ipv4Addr::LOCALHOST.into(),
            api_port: 0,
            pub_port,
            alpn_port: None,
            max_visits: config::max_visits(process::raise_descriptor_limit()),
            ..config::Config::development(identity.clone())
        })
    };
    match bind(PUBLIC_PORT) {
        Err(BindError::Public { .. }) => Ok(bind(0)?),
        bound => Ok(bound?),
    }
}

fn agent(server: &Server, local: SocketAddr) -> anyhow::Result<Client> {
    let relay = RelayConfig {
        trust: RelayTrust::Pinned(server.fingerprint()),
        ..RelayConfig::new(server.addresses().api.to_string().parse()?)
    };
    let endpoint = EndpointConfig::new(tls::generate_key()?, local.to_string().parse()?);
    Ok(Client::new(Config::through(vec![relay], endpoint))?)
}

fn introduction(url: &str, public: SocketAddr, local: SocketAddr) -> String {
    let host = url
        .trim_start_matches("https://")
        .split(':')
        .next()
        .unwrap_or_default();
    let (address, port) = (public.ip(), public.port());
    format!(
        "A relay, an agent and a small local service ({local}) run in this process.\n\
         The agent's certificate is self-signed, hence -k; browsers will ask.\n\
         \n\
         URL: {url}\n\
         \n\
         curl -k {url}\n\
         curl -k --resolve {host}:{port}:{address} {url}    # where *.localhost does not resolve\n\
         \n\
         Ctrl-C ends it."
    )
}

/// The local service: one page.
async fn serve_pages(listener: TcpListener) -> anyhow::Result<()> {
    let mut visitors = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let page = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(page));
                visitors.spawn(page);
            }
            // A visitor who breaks off is no fault of the demo.
            Some(_) = visitors.join_next() => {}
        }
    }
}

async fn page(request: Request<body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let text = format!(
        "It works.\n\nYou asked {} for {} {}.\nThe relay passed your TLS on without being able to \
         read it; the agent ended it and asked me.\n",
        host.unwrap_or("somebody"),
        request.method(),
        request.uri(),
    );
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}
