//! Who is let in as an agent, and what he may do with his connection.

use e2e::agent::new_key;
use e2e::arrival::{arrival, knock, rounds};
use e2e::hello::{hello, hello_naming};
use e2e::peer::quic::dial_with;
use e2e::peer::{connect, hello as agents};
use e2e::poll::soon;
use e2e::relay::{Relay, relay};
use e2e::transport::Over;
use e2e::visitor::say;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::sign::CertifiedKey;
use tunnel_common::wire::alpn;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::Frame;
use tunnel_common::{key, tls};

const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// Streams that a peer grants when the story is not about their number.
const STREAMS: u32 = 100;
/// Long enough for all that the relay does on its own accord.
const ROUNDS: u64 = 20;

/// Dials, says Hello without waiting, and must be refused by the handshake itself.
async fn handshake_fails(relay: &Relay, identity: Option<CertifiedKey>, protocol: &[u8]) {
    // TLS 1.3 lets the client speak before the server has judged its certificate.
    let Ok((_endpoint, connection)) = dial_with(relay.api, identity, protocol, |_| {}).await else {
        return;
    };
    if let Ok((send, recv)) = connection.open_bi().await {
        let (mut reader, mut writer) = (ControlReader::new(recv), ControlWriter::new(send));
        // May fail, as the connection is being closed.
        let _ = writer.send(&Frame::Hello(agents(1, 0))).await;
        let answer = soon("the end", reader.next()).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let reason = soon("the end", connection.closed()).await;
    let by_tls = matches!(reason, quinn::ConnectionError::ConnectionClosed(_));
    assert!(by_tls, "{reason:?}");
}

fn certificate(key: &KeyPair) -> CertifiedKey {
    tls::self_signed(key, &[]).expect("a certificate")
}

#[tokio::test]
async fn an_agent_without_a_plain_certificate_of_a_key_that_we_take_is_no_agent() {
    let relay = relay().await;
    let key = new_key();
    let host = format!("{}.localhost", key::fingerprint(&key).label());
    let mut chain = certificate(&key);
    chain.cert.push(certificate(&new_key()).cert[0].clone());
    let names: Vec<_> = (0..200).map(|n| format!("{n:040}.example")).collect();
    let giant = tls::self_signed(&key, &names).expect("a certificate");
    assert!(giant.cert[0].len() > 9 * 1024);
    for identity in [None, Some(chain), Some(giant)] {
        handshake_fails(&relay, identity, alpn::QUIC).await;
    }
    for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        handshake_fails(&relay, Some(certificate(&key)), alpn::QUIC).await;
    }
    let said = say(relay.public, &hello(&host)).await;
    assert_eq!(said.expect("an alert"), UNRECOGNIZED_NAME);

    // The same key with a plain certificate is.
    let peer = connect(Over::Quic, relay.api, &key, STREAMS).await;
    peer.register(agents(1, 0)).await;
}

#[tokio::test]
async fn an_agent_with_an_ed25519_key_is_welcome() {
    let relay = relay().await;
    let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    let peer = connect(Over::Quic, relay.api, &key, STREAMS).await;
    let (_control, _) = peer.register(agents(1, 0)).await;
    let _visitor = knock(relay.public, &hello(&peer.host())).await;
    arrival(&peer).await;
}

#[tokio::test]
async fn another_protocol_than_ours_gets_no_connection() {
    let relay = relay().await;
    for protocol in [&b"h3"[..], b"qtun/2", b"qtun"] {
        let identity = Some(certificate(&new_key()));
        let dialled = dial_with(relay.api, identity, protocol, |_| {}).await;
        assert!(dialled.is_err(), "{}", protocol.escape_ascii());
    }
}

#[tokio::test]
async fn an_agent_may_open_nothing_but_its_control_stream() {
    let relay = relay().await;
    let peer = connect(Over::Quic, relay.api, &new_key(), STREAMS).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    assert_eq!(peer.quic().max_datagram_size(), None);
    tokio::select! {
        biased;
        _ = peer.quic().open_bi() => panic!("a second bidirectional stream"),
        _ = peer.quic().open_uni() => panic!("a unidirectional stream"),
        others = rounds(&mut control, ROUNDS) => assert_eq!(others, []),
    }
}

#[tokio::test]
async fn a_visitor_without_a_name_reaches_no_agent_made_by_hand_either() {
    let relay = relay().await;
    let peer = connect(Over::Quic, relay.api, &new_key(), STREAMS).await;
    let (mut control, _) = peer.register(agents(1, 0)).await;
    say(relay.public, &hello_naming(None))
        .await
        .expect("an alert");
    tokio::select! {
        biased;
        _ = peer.accepts() => panic!("a visit"),
        others = rounds(&mut control, ROUNDS) => assert_eq!(others, []),
    }
}
