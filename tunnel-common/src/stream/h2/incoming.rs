//! The direction that comes from the peer.
//!
//! The peer gets credit for what is taken from here, not for what has arrived: as much as a window
//! lies here unread.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::client::ResponseFuture;
use http::StatusCode;
use tokio::io::ReadBuf;
use tokio::sync::OwnedSemaphorePermit;

use super::fault;
use crate::h2::STREAM_WINDOW;

/// Pieces below this are joined when they are kept: a frame of one byte costs a hundred.
const SMALL_PIECE_BYTES: usize = 1024;

/// What comes from the peer.
#[derive(Debug)]
pub(super) struct Incoming {
    source: Source,
    kept: Kept,
    /// Whether the end has arrived, behind what is kept.
    all_arrived: bool,
    /// What the peer may send ahead, as last seen.
    window: u64,
}

#[derive(Debug)]
enum Source {
    /// The peer has not answered the request yet. The permit is for that.
    Unanswered {
        response: ResponseFuture,
        _permit: OwnedSemaphorePermit,
    },
    /// The peer answered, but not as it should.
    Refused(StatusCode),
    Open(RecvStream),
    Discarded,
}

impl Incoming {
    /// Of a stream that we opened.
    pub(super) fn unanswered(response: ResponseFuture, permit: OwnedSemaphorePermit) -> Self {
        Self::new(Source::Unanswered {
            response,
            _permit: permit,
        })
    }

    /// Of a stream that the peer opened.
    pub(super) fn open(body: RecvStream) -> Self {
        Self::new(Source::Open(body))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            kept: Kept::default(),
            all_arrived: false,
            window: STREAM_WINDOW.into(),
        }
    }

    /// Ready when the peer has answered, or never will.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_body(cx).map(|_| ())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut RecvStream>> {
        if let Source::Unanswered { response, .. } = &mut self.source {
            let response = ready!(Pin::new(response).poll(cx)).map_err(fault::broken)?;
            self.source = match response.status() {
                StatusCode::OK => Source::Open(response.into_body()),
                other => Source::Refused(other),
            };
        }
        match &mut self.source {
            Source::Open(body) => Poll::Ready(Ok(body)),
            Source::Refused(status) => {
                let text = format!("the peer answered {status}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)))
            }
            Source::Discarded => Poll::Ready(Err(fault::ended())),
            Source::Unanswered { .. } => Poll::Pending,
        }
    }

    /// Whether the peer has answered, as far as was asked.
    pub(super) fn is_answered(&self) -> bool {
        !matches!(self.source, Source::Unanswered { .. })
    }

    /// The next bytes, never empty; `None` is the clean end. Both an end and an error are told
    /// again by the next call.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match self.kept.pop() {
            Some(piece) => Poll::Ready(Ok(Some(piece))),
            None => self.poll_arrived(cx),
        }
    }

    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while !self.all_arrived {
            let body = ready!(self.poll_body(cx))?;
            match ready!(body.poll_data(cx)).transpose() {
                // The last frame of a peer that does not end by trailers.
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(None) => self.all_arrived = true,
                piece => return Poll::Ready(piece.map_err(fault::broken)),
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Gives the peer credit for bytes that were taken.
    pub(super) fn grant(&mut self, bytes: usize) {
        if let Source::Open(body) = &mut self.source {
            // Fails only for more than has arrived.
            let _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// Reads into `buf`; nothing is the clean end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = ready!(self.poll_piece(cx))? {
            let read = piece.len().min(buf.remaining());
            buf.put_slice(&piece.split_to(read));
            self.kept.put_back(piece);
            self.grant(read);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what has arrived out of h2, without credit for the peer. h2 counts small frames that
    /// lie unread and kills the connection.
    pub(super) fn keep(&mut self, cx: &mut Context<'_>) {
        let Source::Open(body) = &mut self.source else {
            return;
        };
        while !self.all_arrived {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(piece))) => self.kept.push(&piece),
                Poll::Ready(None) => self.all_arrived = true,
                // An error is told again by the next read.
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        let flow = body.flow_control();
        let granted = usize::try_from(flow.available_capacity()).unwrap_or(0);
        self.window = (granted + flow.used_capacity()) as u64;
    }

    /// Nothing of it is wanted any more: h2 throws away what has come and what comes.
    pub(super) fn discard(&mut self) {
        self.kept = Kept::default();
        self.source = Source::Discarded;
    }

    /// What the peer may send ahead, as the last [`keep`](Self::keep) saw it.
    pub(super) fn window(&self) -> u64 {
        self.window
    }
}

/// Bytes in order, the small ones joined.
#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Kept {
    fn push(&mut self, piece: &Bytes) {
        if piece.len() < SMALL_PIECE_BYTES {
            self.tail.extend_from_slice(piece);
            return;
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(piece.clone());
    }

    /// What is left of a piece that was taken.
    fn put_back(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.pieces.pop_front().or_else(|| {
            let tail = std::mem::take(&mut self.tail);
            (!tail.is_empty()).then(|| tail.freeze())
        })
    }
}
