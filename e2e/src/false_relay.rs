//! A relay made by hand: it shows what a story wants, and tells how agents took it.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, ConnectionError, Endpoint, ServerConfig};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::task::JoinSet;
use tunnel_common::tls;
use tunnel_common::wire::alpn;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Limits, Welcome};

use crate::poll::soon;

/// Something that listens where a relay should.
#[derive(Debug)]
pub struct FalseRelay {
    /// Where agents dial.
    pub api: SocketAddr,
    endpoint: Endpoint,
}

/// Listens, and shows `identity`, whose certificate and key need not belong together.
pub fn false_relay(identity: CertifiedKey) -> FalseRelay {
    at("127.0.0.1:0".parse().expect("an address"), identity)
}

/// The same at a given address.
pub fn at(address: SocketAddr, identity: CertifiedKey) -> FalseRelay {
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![alpn::QUIC.to_vec()];
    let crypto = QuicServerConfig::try_from(config).expect("QUIC");
    let config = ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = Endpoint::server(config, address).expect("binds");
    let api = endpoint.local_addr().expect("bound");
    FalseRelay { api, endpoint }
}

impl FalseRelay {
    /// Welcomes every agent, answers its pings, and never grants anything. Never ends.
    pub async fn welcomes_and_grants_nothing(&self) {
        let mut welcoming = JoinSet::new();
        while let Some(incoming) = self.endpoint.accept().await {
            // An agent may give up an attempt that took too long.
            if let Ok(connection) = incoming.await {
                welcoming.spawn(welcome_and_grant_nothing(connection));
            }
        }
    }

    /// Waits for the next agent: it goes through with the handshake, or gives the TLS alert by which
    /// it breaks off (RFC 8446, 6.2). What the agent expected must not be in the reason that it gives.
    pub async fn dialled(&self) -> Result<(), u8> {
        let incoming = soon("an agent dials", self.endpoint.accept()).await;
        let connecting = incoming.expect("listens").accept().expect("accepts");
        let ended = match soon("the handshake", connecting).await {
            // An agent speaks first: it has gone through with it when it opens its control stream.
            Ok(connection) => match soon("a stream or an end", connection.accept_bi()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match ended {
            ConnectionError::ConnectionClosed(close) => {
                // QUIC has alerts at 0x100 (RFC 9001, 4.8).
                let alert = u64::from(close.error_code) - 0x100;
                let reason = String::from_utf8_lossy(&close.reason);
                for secret in ["sha256", "known_relays", "--", "line"] {
                    assert!(!reason.contains(secret), "it learns: {reason}");
                }
                Err(u8::try_from(alert).expect("an alert"))
            }
            other => panic!("ended otherwise: {other}"),
        }
    }
}

async fn welcome_and_grant_nothing(connection: Connection) {
    let Ok((send, recv)) = connection.accept_bi().await else {
        return;
    };
    let (mut reader, mut writer) = (ControlReader::new(recv), ControlWriter::new(send));
    // The agent goes when it has waited long enough.
    while let Ok(Some(frame)) = reader.next().await {
        let answer = match frame {
            Frame::Hello(_) => Frame::Welcome(welcome()),
            Frame::Ping { nonce } => Frame::Pong { nonce },
            _ => continue,
        };
        if writer.send(&answer).await.is_err() {
            return;
        }
    }
}

fn welcome() -> Welcome {
    Welcome {
        relay_id: "false".to_owned(),
        features: vec![],
        limits: Limits::default(),
        public_port: 443,
        alpn_port: None,
        alternates: vec![],
        rev: 0,
        granted: vec![],
    }
}
