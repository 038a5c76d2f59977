//! One TLS connection as many streams.
//!
//! The relay gets an [`Opener`] and a [`Driver`], the agent an [`Acceptor`] that is both. Nothing
//! moves on any stream unless the driver is polled, or the acceptor asked for its next stream: each
//! wants a task of its own, that does nothing else. Dropping it ends the connection at once, and
//! every stream with an error.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::server::{self, SendResponse};
use h2::{PingPong, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::leaving::{Exit, Leaving};
use super::stream::H2Stream;
use crate::h2::{MAX_UNANSWERED, Purpose, client_builder, reason, server_builder};
use crate::wire::code::Code;

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The connection is gone, or takes no more streams.
    #[error("the connection is gone: {0}")]
    Gone(#[source] h2::Error),
    /// The driver is gone.
    #[error("the connection is closed")]
    Closed,
}

/// Makes the relay's end. It waits for no answer of the peer; the caller sets the deadline.
pub async fn connect<T>(io: T) -> Result<(Opener, Driver<T>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (requests, connection) = client_builder().handshake(io).await?;
    let (exit, leaving) = Leaving::new();
    let unanswered = Arc::new(Semaphore::new(MAX_UNANSWERED));
    let opener = Opener {
        requests,
        unanswered: unanswered.clone(),
        exit,
    };
    let driver = Driver {
        connection,
        leaving,
        unanswered,
    };
    Ok((opener, driver))
}

/// Opens streams on one connection. Cheap to clone; the connection ends by itself when the last
/// opener and the last stream are gone.
#[derive(Clone, Debug)]
pub struct Opener {
    requests: SendRequest<Bytes>,
    unanswered: Arc<Semaphore>,
    exit: Exit,
}

impl Opener {
    /// Opens a stream. Waits, like QUIC, while the peer allows no more, or leaves
    /// [`MAX_UNANSWERED`] of them unanswered: always under a deadline. A cancelled call leaves
    /// nothing behind.
    pub async fn open(&self, purpose: Purpose) -> Result<H2Stream, OpenError> {
        let unanswered = self.unanswered.clone();
        let permit = unanswered.acquire_owned().await;
        let permit = permit.map_err(|_| OpenError::Closed)?;
        let mut requests = self.requests.clone();
        poll_fn(|cx| requests.poll_ready(cx))
            .await
            .map_err(OpenError::Gone)?;
        let (response, send) = requests
            .send_request(purpose.request(), false)
            .map_err(OpenError::Gone)?;
        let stream = H2Stream::opened(response, send, permit, self.exit.clone());
        // At the peer's limit the request is queued, and this waits until it has gone.
        poll_fn(|cx| requests.poll_ready(cx))
            .await
            .map_err(OpenError::Gone)?;
        Ok(stream)
    }
}

/// Moves the relay's end: a future that is ready when the connection is over.
#[derive(Debug)]
#[must_use = "nothing moves unless the driver is polled"]
pub struct Driver<T: AsyncRead + AsyncWrite> {
    connection: client::Connection<T, Bytes>,
    leaving: Leaving,
    unanswered: Arc<Semaphore>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// For the one who watches whether the peer lives; `None` the second time.
    pub fn ping_pong(&mut self) -> Option<PingPong> {
        self.connection.ping_pong()
    }

    /// Changes what the peer may send ahead on each stream, up to 2^31-1 bytes. Fails while an
    /// earlier change has not been confirmed.
    pub fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.connection.set_initial_window_size(bytes)
    }

    /// Changes what the peer may send ahead on all streams together, up to 2^31-1 bytes.
    pub fn set_connection_window(&mut self, bytes: u32) {
        self.connection.set_target_window_size(bytes);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.leaving.poll(cx);
        Pin::new(&mut self.connection).poll(cx)
    }
}

impl<T: AsyncRead + AsyncWrite> Drop for Driver<T> {
    fn drop(&mut self) {
        self.unanswered.close();
    }
}

/// Makes the agent's end. Waits for the relay's first bytes; the caller sets the deadline.
pub async fn serve<T>(io: T) -> Result<Acceptor<T>, h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = server_builder().handshake(io).await?;
    let (exit, leaving) = Leaving::new();
    Ok(Acceptor {
        connection,
        leaving,
        exit,
    })
}

/// Accepts the relay's streams, and moves the agent's end meanwhile.
#[derive(Debug)]
pub struct Acceptor<T> {
    connection: server::Connection<T, Bytes>,
    leaving: Leaving,
    exit: Exit,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Acceptor<T> {
    /// The next stream, answered already; `None` when the connection has ended. To be called again
    /// at once: what comes of the stream is for another task. Cancel safe.
    pub async fn accept(&mut self) -> Option<Result<(Purpose, H2Stream), h2::Error>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Purpose, H2Stream), h2::Error>>> {
        loop {
            self.leaving.poll(cx);
            // The future holds nothing between polls: a new one each time is as good as one kept.
            let accepted = ready!(pin!(self.connection.accept()).poll(cx));
            let (request, respond) = match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            if let Some(stream) = self.answer(request, respond) {
                return Poll::Ready(Some(Ok(stream)));
            }
        }
    }

    /// `None` for what is no request of ours, and for one that was reset before we came to it.
    fn answer(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<(Purpose, H2Stream)> {
        let Some(purpose) = Purpose::of(&request) else {
            respond.send_reset(reason(Code::Protocol));
            return None;
        };
        let send = respond.send_response(Response::new(()), false).ok()?;
        let stream = H2Stream::accepted(request.into_body(), send, self.exit.clone());
        Some((purpose, stream))
    }

    /// Tells the relay to open no more streams here; those that are open go on, and the connection
    /// ends with the last of them.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Ends the connection, and every stream, with `code`, as soon as that is told:
    /// [`accept`](Self::accept) must be called on until it says `None`.
    pub fn close(&mut self, code: Code) {
        self.connection.abrupt_shutdown(reason(code));
    }

    /// For the one who watches whether the peer lives; `None` the second time.
    pub fn ping_pong(&mut self) -> Option<PingPong> {
        self.connection.ping_pong()
    }

    /// Changes what the peer may send ahead on each stream, up to 2^31-1 bytes. Fails while an
    /// earlier change has not been confirmed.
    pub fn set_stream_window(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.connection.set_initial_window_size(bytes)
    }

    /// Changes what the peer may send ahead on all streams together, up to 2^31-1 bytes.
    pub fn set_connection_window(&mut self, bytes: u32) {
        self.connection.set_target_window_size(bytes);
    }
}
