//! A visit as it arrives at an agent that was made by hand.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tunnel_common::stream::header::StreamHeader;
use tunnel_common::wire::frame::Frame;

use crate::hello::hello;
use crate::peer::streams::{PeerRecv, PeerSend};
use crate::peer::{Peer, PeerControl};
use crate::poll::soon;
use crate::relay::Relay;

/// One visit's stream, its header read and not a byte more.
#[derive(Debug)]
pub struct Arrival {
    /// What the relay says about the visit.
    pub header: StreamHeader,
    /// To the visitor.
    pub send: PeerSend,
    /// From the visitor.
    pub recv: PeerRecv,
}

impl Arrival {
    /// The visitor's next bytes, exactly so many.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon("the visitor's bytes", self.recv.read_exact(&mut bytes))
            .await
            .expect("the stream goes on");
        bytes
    }

    /// Passes `ping` from the visitor to the agent and `pong` back: the visit is alive.
    pub async fn exchanges(&mut self, visitor: &mut TcpStream) {
        visitor.write_all(b"ping").await.expect("the visit goes on");
        assert_eq!(self.bytes(4).await, b"ping");
        self.send.write_all(b"pong").await.expect("goes on");
        let mut answer = [0; 4];
        soon("the answer", visitor.read_exact(&mut answer))
            .await
            .expect("goes on");
        assert_eq!(&answer, b"pong");
    }
}

/// Waits for the next visit to this agent.
pub async fn arrival(peer: &Peer) -> Arrival {
    let (send, mut recv) = soon("a visit", peer.accepts()).await;
    let header = soon("the stream's header", StreamHeader::read(&mut recv)).await;
    Arrival {
        header: header.expect("a header"),
        send,
        recv,
    }
}

/// Connects to the public port and sends `bytes`; waits for nothing.
pub async fn knock(relay: SocketAddr, bytes: &[u8]) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(relay).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(bytes).await?;
    Ok(tcp)
}

/// Pings the relay `rounds` times and waits for each answer: what the relay does on its own accord
/// had time to happen. Gives back every other frame that came.
pub async fn rounds(control: &mut PeerControl, rounds: u64) -> Vec<Frame> {
    let mut others = vec![];
    for nonce in 0..rounds {
        let ping = Frame::Ping { nonce };
        control.writer.send(&ping).await.expect("sends");
        loop {
            match control.next().await.expect("the relay answers") {
                Frame::Pong { nonce: answered } if answered == nonce => break,
                other => others.push(other),
            }
        }
    }
    others
}

impl Peer {
    /// Where its visitors go in development mode.
    pub fn host(&self) -> String {
        format!("{}.localhost", self.id)
    }
}

/// A visit to `peer` whose hello has arrived.
pub async fn visited(relay: &Relay, peer: &Peer) -> (TcpStream, Arrival) {
    let bytes = hello(&peer.host());
    let visitor = knock(relay.public, &bytes).await.expect("connects");
    let mut arrived = arrival(peer).await;
    assert_eq!(arrived.bytes(bytes.len()).await, bytes);
    (visitor, arrived)
}
