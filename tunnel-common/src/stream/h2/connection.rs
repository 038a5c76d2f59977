//! One TLS connection as many streams.
//!
//! The relay gets an [`Opener`] and a [`Driver`], the agent an [`Acceptor`] that is both. Nothing
//! moves on any stream unless the driver is polled, or the acceptor asked for its next stream: each
//! wants a task of its own, that does nothing else. Dropping it ends the connection at once, and
//! every stream with an error.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::gathered::Gathered;
use super::leaving::{Exit, Leaving};
use super::settings::Settings;
use super::stream::H2Stream;
use super::traffic::Watched;
use super::watch::{Seen, Turn, Watch, Windows};
use crate::h2::{
    MAX_UNANSWERED, Purpose, client_builder, close_code, close_request, code, reason,
    server_builder,
};
use crate::wire::code::Code;

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// What h2 writes to and reads from.
type Underlay<T> = Gathered<Watched<T>>;

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

/// Why a connection has ended that did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The peer is not there any more.
    #[error("the peer has fallen silent")]
    Silent,
    /// The peer has closed it, and said why.
    #[error("closed by the peer: {0}")]
    Closed(Code),
    /// The peer broke the rules, or says that we did, or the socket is gone.
    #[error(transparent)]
    H2(h2::Error),
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        match error.reason().map(code) {
            Some(Code::Other(_)) | None => Self::H2(error),
            Some(code) if error.is_go_away() && error.is_remote() => Self::Closed(code),
            Some(_) => Self::H2(error),
        }
    }
}

/// Makes the relay's end. It waits for no answer of the peer; the caller sets the deadline.
pub async fn connect<T>(io: T, settings: &Settings) -> Result<(Opener, Driver<T>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (io, traffic) = Watched::new(io, 0);
    let (io, gathering) = Gathered::new(io);
    let window = settings.first_window();
    let (requests, mut connection) = client_builder(window).handshake(io).await?;
    let pings = connection.ping_pong();
    let (exit, leaving) = Leaving::new();
    let unanswered = Arc::new(Semaphore::new(MAX_UNANSWERED));
    let opener = Opener {
        requests,
        unanswered: unanswered.clone(),
        exit,
    };
    let driver = Driver {
        watch: Watch::new(pings, traffic, gathering, window, settings),
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

impl Opener {
    /// Asks the agent to close the connection because of `code`, and waits until it does: then the
    /// driver is ready as well. An error means that it is gone, or will not.
    pub async fn close(&self, code: Code) -> Result<(), OpenError> {
        let mut requests = self.requests.clone();
        poll_fn(|cx| requests.poll_ready(cx))
            .await
            .map_err(OpenError::Gone)?;
        let (answer, _) = requests
            .send_request(close_request(code), true)
            .map_err(OpenError::Gone)?;
        drop(requests);
        answer.await.map(drop).map_err(OpenError::Gone)
    }
}

/// Moves the relay's end: a future that is ready when the connection is over.
#[derive(Debug)]
#[must_use = "nothing moves unless the driver is polled"]
pub struct Driver<T: AsyncRead + AsyncWrite + Unpin> {
    connection: client::Connection<Underlay<T>, Bytes>,
    watch: Watch,
    leaving: Leaving,
    unanswered: Arc<Semaphore>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Result<(), Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut turn = Turn::default();
        loop {
            this.leaving.poll(cx);
            this.watch.begin(&turn);
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            if this.watch.again(&mut turn) {
                continue;
            }
            match this.watch.poll(cx, &mut this.connection) {
                Seen::Quiet => return Poll::Pending,
                Seen::Changed => {}
                Seen::Dead => return Poll::Ready(Err(Broken::Silent)),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Windows for client::Connection<T, Bytes> {
    fn set_stream(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(bytes)
    }

    fn set_connection(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Windows for server::Connection<T, Bytes> {
    fn set_stream(&mut self, bytes: u32) -> Result<(), h2::Error> {
        self.set_initial_window_size(bytes)
    }

    fn set_connection(&mut self, bytes: u32) {
        self.set_target_window_size(bytes);
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Drop for Driver<T> {
    fn drop(&mut self) {
        self.unanswered.close();
    }
}

/// Makes the agent's end. Waits for the relay's first bytes; the caller sets the deadline.
pub async fn serve<T>(io: T, settings: &Settings) -> Result<Acceptor<T>, h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (io, traffic) = Watched::new(io, PREFACE_BYTES);
    let (io, gathering) = Gathered::new(io);
    let window = settings.first_window();
    let mut connection = server_builder(window).handshake(io).await?;
    let pings = connection.ping_pong();
    let (exit, leaving) = Leaving::new();
    Ok(Acceptor {
        watch: Watch::new(pings, traffic, gathering, window, settings),
        connection,
        leaving,
        exit,
        closed: None,
    })
}

/// Accepts the relay's streams, and moves the agent's end meanwhile.
#[derive(Debug)]
pub struct Acceptor<T: AsyncRead + AsyncWrite + Unpin> {
    connection: server::Connection<Underlay<T>, Bytes>,
    watch: Watch,
    leaving: Leaving,
    exit: Exit,
    closed: Option<Code>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Acceptor<T> {
    /// The next stream, answered already; `None` when the connection has ended. To be called again
    /// at once: what comes of the stream is for another task. Cancel safe.
    pub async fn accept(&mut self) -> Option<Result<(Purpose, H2Stream), Broken>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Purpose, H2Stream), Broken>>> {
        let mut turn = Turn::default();
        loop {
            self.leaving.poll(cx);
            self.watch.begin(&turn);
            // The future holds nothing between polls: a new one each time is as good as one kept.
            let accepted = pin!(self.connection.accept()).poll(cx);
            let (request, respond) = match accepted {
                Poll::Ready(Some(Ok(accepted))) => accepted,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.watch.again(&mut turn) => continue,
                Poll::Pending => match self.watch.poll(cx, &mut self.connection) {
                    Seen::Quiet => return Poll::Pending,
                    Seen::Changed => continue,
                    Seen::Dead => return Poll::Ready(Some(Err(Broken::Silent))),
                },
            };
            if let Some(code) = close_code(&request) {
                self.closed = self.closed.or(Some(code));
                // Nothing is left to be said, and the relay waits for our close.
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
                continue;
            }
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

    /// Why the relay has closed the connection, if it has said so.
    pub fn closed(&self) -> Option<Code> {
        self.closed
    }

    /// Bytes that have come so far, above TLS.
    pub fn received(&self) -> Arc<AtomicU64> {
        self.watch.counter()
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
}
