//! Control frames on a byte stream: a length, then JSON.
//!
//! `u32` big-endian, at most [`MAX_FRAME_BYTES`] and checked before anything is allocated for it,
//! then that many bytes of one [`Frame`].

use std::io;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec, LengthDelimitedCodecError};

use super::frame::Frame;

/// The longest frame: room for hundreds of endpoints, and no more than a peer may make us hold.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;

/// What each half holds room for to begin with, in bytes: most frames fit, and most agents say nothing.
const ROOM: usize = 512;

/// Why a control stream is of no more use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The transport ended or failed: nobody's fault that we could name.
    #[error("the control stream broke: {0}")]
    Io(#[source] io::Error),
    /// The peer announced a frame of over [`MAX_FRAME_BYTES`], or we were about to send one.
    #[error("a control frame of more than {MAX_FRAME_BYTES} bytes")]
    TooLong,
    /// The peer sent what is no frame.
    #[error("a control frame that can not be read: {0}")]
    Malformed(#[source] serde_json::Error),
}

impl ControlError {
    /// Whether the peer broke the protocol, rather than the transport under it.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, Self::TooLong | Self::Malformed(_))
    }
}

impl From<io::Error> for ControlError {
    fn from(error: io::Error) -> Self {
        let too_long = error
            .get_ref()
            .is_some_and(|e| e.is::<LengthDelimitedCodecError>());
        if too_long {
            Self::TooLong
        } else {
            Self::Io(error)
        }
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(MAX_FRAME_BYTES)
        .new_codec()
}

/// The receiving half of a control stream.
#[derive(Debug)]
pub struct ControlReader<R>(FramedRead<R, LengthDelimitedCodec>);

impl<R: AsyncRead + Unpin> ControlReader<R> {
    /// Reads frames from `stream`.
    pub fn new(stream: R) -> Self {
        Self(FramedRead::with_capacity(stream, codec(), ROOM))
    }

    /// The next frame; `None` at the stream's end. One that this version does not know is
    /// [`Frame::Unknown`].
    ///
    /// Cancel safe: what was read of a frame is kept for the next call. A peer that sends without a
    /// pause keeps nobody else from being polled.
    pub async fn next(&mut self) -> Result<Option<Frame>, ControlError> {
        consume_budget().await;
        match self.0.next().await {
            Some(bytes) => {
                let frame = serde_json::from_slice(&bytes?).map_err(ControlError::Malformed)?;
                Ok(Some(frame))
            }
            None => Ok(None),
        }
    }
}

/// The sending half of a control stream.
#[derive(Debug)]
pub struct ControlWriter<W>(FramedWrite<W, LengthDelimitedCodec>);

impl<W: AsyncWrite + Unpin> ControlWriter<W> {
    /// Writes frames to `stream`.
    pub fn new(stream: W) -> Self {
        Self(FramedWrite::with_capacity(stream, codec(), ROOM))
    }

    /// Sends one frame. After a cancelled call what is left of it goes out before the next.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), ControlError> {
        let bytes = serde_json::to_vec(frame).map_err(ControlError::Malformed)?;
        Ok(self.0.send(Bytes::from(bytes)).await?)
    }

    /// Gives the stream back, to end it.
    pub fn into_inner(self) -> W {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn frames_arrive_in_order_and_unknown_ones_as_such() {
        let (near, far) = tokio::io::duplex(64);
        let mut writer = ControlWriter::new(near);
        let mut reader = ControlReader::new(far);
        let sending = async {
            writer.send(&Frame::Ping { nonce: 1 }).await.expect("sends");
            writer.send(&Frame::Unknown).await.expect("sends");
            writer.send(&Frame::Pong { nonce: 2 }).await.expect("sends");
            drop(writer);
        };
        let receiving = async {
            assert_eq!(
                reader.next().await.expect("reads"),
                Some(Frame::Ping { nonce: 1 })
            );
            assert_eq!(reader.next().await.expect("reads"), Some(Frame::Unknown));
            assert_eq!(
                reader.next().await.expect("reads"),
                Some(Frame::Pong { nonce: 2 })
            );
            assert_eq!(reader.next().await.expect("ends"), None);
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(&(MAX_FRAME_BYTES as u32 + 1).to_be_bytes())
            .await
            .expect("writes");
        let error = ControlReader::new(far).next().await.expect_err("too long");
        assert!(matches!(error, ControlError::TooLong), "{error}");
        assert!(error.is_peers_fault());
    }

    #[tokio::test]
    async fn what_is_no_frame_is_the_peers_fault() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"\0\0\0\x02{]").await.expect("writes");
        let error = ControlReader::new(far).next().await.expect_err("malformed");
        assert!(error.is_peers_fault(), "{error}");
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error_and_not_a_clean_end() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"\0\0\0\x09{").await.expect("writes");
        drop(near);
        let error = ControlReader::new(far).next().await.expect_err("cut short");
        assert!(!error.is_peers_fault(), "{error}");
    }
}
