//! The streams of a hand-made agent, over either transport: control's and the visits'.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tunnel_common::h2::reason;
use tunnel_common::wire::code::Code;

/// The trailer that ends a direction over HTTP/2.
const END: HeaderName = HeaderName::from_static("end");

/// To the relay. Dropping it is what the library makes of it.
#[derive(Debug)]
pub enum PeerSend {
    /// Over QUIC.
    Quic(quinn::SendStream),
    /// Over HTTP/2.
    H2(h2::SendStream<Bytes>),
}

/// From the relay. What is not read uses up the credit that the relay was given.
#[derive(Debug)]
pub enum PeerRecv {
    /// Over QUIC.
    Quic(quinn::RecvStream),
    /// Over HTTP/2: the body, and what is left of its last frame.
    H2(h2::RecvStream, Bytes),
}

impl PeerSend {
    /// Ends this direction cleanly, behind what was sent.
    pub fn finish(&mut self) {
        match self {
            Self::Quic(stream) => stream.finish().expect("is open"),
            Self::H2(stream) => {
                let trailers = HeaderMap::from_iter([(END, HeaderValue::from_static(""))]);
                stream.send_trailers(trailers).expect("is open");
            }
        }
    }

    /// Breaks off, with this code: over QUIC this direction, over HTTP/2 both.
    pub fn reset(&mut self, code: Code) {
        match self {
            Self::Quic(stream) => stream.reset(code.into()).expect("is open"),
            Self::H2(stream) => stream.send_reset(reason(code)),
        }
    }

    /// Waits until the relay has what was sent, or is gone. HTTP/2 has no such word.
    pub async fn is_heard(&mut self) {
        if let Self::Quic(stream) = self {
            stream.stopped().await.expect("goes on");
        }
    }
}

fn gone(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncWrite for PeerSend {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = match self.get_mut() {
            Self::Quic(stream) => return AsyncWrite::poll_write(Pin::new(stream), cx, bytes),
            Self::H2(stream) => stream,
        };
        stream.reserve_capacity(bytes.len());
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(room) => drop(room.map_err(gone)?),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let taken = bytes.len().min(stream.capacity());
        let piece = Bytes::copy_from_slice(&bytes[..taken]);
        stream.send_data(piece, false).map_err(gone)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for PeerRecv {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (stream, left) = match self.get_mut() {
            Self::Quic(stream) => return AsyncRead::poll_read(Pin::new(stream), cx, buf),
            Self::H2(stream, left) => (stream, left),
        };
        while left.is_empty() {
            match ready!(stream.poll_data(cx)) {
                Some(piece) => *left = piece.map_err(gone)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = left.len().min(buf.remaining());
        buf.put_slice(&left[..taken]);
        left.advance(taken);
        // Fails only for more than has arrived.
        let _ = stream.flow_control().release_capacity(taken);
        Poll::Ready(Ok(()))
    }
}
