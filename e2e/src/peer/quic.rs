//! The hand-made agent's QUIC connection, by quinn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use rustls::sign::CertifiedKey;
use tunnel_common::wire::alpn;

use super::tls::tls_config;
use crate::poll::soon;

/// Dials with any certificate, or none: the handshake may fail.
pub async fn dial(
    api: SocketAddr,
    identity: Option<CertifiedKey>,
    streams: u32,
) -> Result<(Endpoint, Connection), ConnectionError> {
    dial_with(api, identity, alpn::QUIC, |transport| {
        transport.max_concurrent_bidi_streams(streams.into());
    })
    .await
}

/// Dials with any certificate, offering this protocol, with a changed transport.
pub async fn dial_with(
    api: SocketAddr,
    identity: Option<CertifiedKey>,
    protocol: &[u8],
    change: impl FnOnce(&mut TransportConfig),
) -> Result<(Endpoint, Connection), ConnectionError> {
    let config = tls_config(identity, protocol);
    let mut quic = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("QUIC")));
    let mut transport = TransportConfig::default();
    // As an agent does always: a story on a busy machine is no dead peer.
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    change(&mut transport);
    quic.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let connecting = endpoint.connect_with(quic, api, "relay").expect("dials");
    let connection = soon("the handshake", connecting).await?;
    Ok((endpoint, connection))
}
