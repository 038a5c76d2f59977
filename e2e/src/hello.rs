//! ClientHellos: as bytes, made by hand, and cut otherwise than a TLS library would.
//!
//! TLS hashes handshake messages and not records, so a hello that was cut anew still leads to an
//! answer (RFC 8446, 4.4.1 and 5.1): [`hold`] stops a real handshake where its hello is about to
//! leave, and lets the story send it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{Connect, TlsConnector};

use crate::poll::soon;
use crate::visitor::tls_config;

/// Bytes of a record header.
pub const RECORD_HEADER: usize = 5;
/// Holds any hello that fits one record.
const PIPE_BYTES: usize = 64 * 1024;

/// The hello of an ordinary visitor of `host`, in one record. Nothing can be answered to it: its
/// keys are thrown away.
pub fn hello(host: &str) -> Vec<u8> {
    hello_with(host, tls_config(&[b"http/1.1"]))
}

/// The hello that this TLS sends to `host`.
pub fn hello_with(host: &str, tls: Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from(host.to_owned()).expect("a host name");
    let mut connection = ClientConnection::new(tls, name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("writes to memory");
    bytes
}

/// A hello made by hand, in one record, with any bytes for a name, or without a name.
pub fn hello_naming(name: Option<&[u8]>) -> Vec<u8> {
    let mut extensions = [
        extension(43, &[2, 3, 4]),     // supported_versions: TLS 1.3
        extension(13, &[0, 2, 4, 3]),  // signature_algorithms: ECDSA P-256
        extension(10, &[0, 2, 0, 29]), // supported_groups: X25519
        extension(51, &vector(&[&[0, 29, 0, 32][..], &[9; 32]].concat())), // key_share
    ]
    .concat();
    if let Some(name) = name {
        let host_name = [&[0][..], &vector(name)].concat();
        extensions.extend(extension(0, &vector(&host_name)));
    }
    let body = [
        &[3, 3][..],
        &[7; 32],                  // random
        &[0],                      // no session id
        &[0, 2, 0x13, 0x01, 1, 0], // TLS_AES_128_GCM_SHA256, no compression
        &vector(&extensions),
    ]
    .concat();
    record(&[&[1, 0][..], &vector(&body)].concat())
}

/// The bytes with their length in two bytes before them.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a short vector");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(content)].concat()
}

/// One handshake record with this payload.
pub fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1][..], &vector(payload)].concat()
}

/// The message of a hello that is in one record.
pub fn message(hello: &[u8]) -> &[u8] {
    &hello[RECORD_HEADER..]
}

/// The hello in two records, the first with `at` bytes of the message.
pub fn in_two_records(hello: &[u8], at: usize) -> Vec<u8> {
    let (first, second) = message(hello).split_at(at);
    [record(first), record(second)].concat()
}

/// The hello in records of one byte.
pub fn in_tiny_records(hello: &[u8]) -> Vec<u8> {
    message(hello)
        .iter()
        .flat_map(|byte| record(&[*byte]))
        .collect()
}

/// A visitor whose hello is ready and has not been sent.
pub struct Held {
    /// The hello, as the TLS library would send it: in one record.
    pub hello: Vec<u8>,
    /// The connection to the relay. Every write leaves at once.
    pub tcp: TcpStream,
    connecting: Connect<DuplexStream>,
    far: DuplexStream,
}

/// A visitor after a handshake whose hello the story sent.
#[derive(Debug)]
pub struct Recut {
    /// The visitor's TLS.
    pub tls: TlsStream<DuplexStream>,
    _pump: JoinSet<()>,
}

/// Connects to `relay`, and stops where the hello for `host` would be sent.
pub async fn hold(relay: SocketAddr, host: &str, tls: Arc<ClientConfig>) -> io::Result<Held> {
    let tcp = TcpStream::connect(relay).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
    let mut connecting = TlsConnector::from(tls).connect(name, near);
    let hello = tokio::select! {
        ended = &mut connecting => return Err(ended.err().unwrap_or_else(no_hello)),
        hello = read_record(&mut far) => hello?,
    };
    Ok(Held {
        hello,
        tcp,
        connecting,
        far,
    })
}

fn no_hello() -> io::Error {
    io::Error::other("a handshake without a hello")
}

async fn read_record(stream: &mut DuplexStream) -> io::Result<Vec<u8>> {
    let mut record = vec![0; RECORD_HEADER];
    stream.read_exact(&mut record).await?;
    let length = u16::from_be_bytes([record[3], record[4]]);
    record.resize(RECORD_HEADER + usize::from(length), 0);
    stream.read_exact(&mut record[RECORD_HEADER..]).await?;
    Ok(record)
}

impl Held {
    /// Sends these bytes in the hello's place, or a part of them.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tcp.write_all(bytes).await
    }

    /// Goes on as an ordinary visitor: waits for the answer to the hello.
    pub async fn answered(self) -> io::Result<Recut> {
        let (mut tcp, mut far) = (self.tcp, self.far);
        let mut pump = JoinSet::new();
        pump.spawn(async move {
            // An end in the middle shows at the visitor's own end.
            let _ = copy_bidirectional(&mut far, &mut tcp).await;
        });
        let tls = soon("the handshake", self.connecting).await?;
        Ok(Recut { tls, _pump: pump })
    }
}
