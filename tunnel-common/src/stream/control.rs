//! The two halves of a control stream, whatever the tunnel is made of.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::halves::{ReadHalf, WriteHalf};

/// What the peer says.
#[derive(Debug)]
pub enum ControlRecv {
    /// Over QUIC.
    Quic(RecvStream),
    /// Over HTTP/2.
    H2(ReadHalf),
}

/// What is said to the peer.
#[derive(Debug)]
pub enum ControlSend {
    /// Over QUIC.
    Quic(SendStream),
    /// Over HTTP/2.
    H2(WriteHalf),
}

impl ControlSend {
    /// Ends the stream, and waits until the peer has all that was sent, as far as the transport can
    /// tell, or the connection is gone. The caller sets the deadline.
    pub async fn end(self) {
        match self {
            Self::Quic(mut stream) => {
                if stream.finish().is_ok() {
                    // Whether it has heard or can not hear any more: there is nothing left to do.
                    let _ = stream.stopped().await;
                }
            }
            Self::H2(half) => half.end().await,
        }
    }
}

impl AsyncRead for ControlRecv {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), cx, buf),
            Self::H2(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ControlSend {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
            Self::H2(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => Pin::new(stream).poll_flush(cx),
            Self::H2(half) => Pin::new(half).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::H2(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}
