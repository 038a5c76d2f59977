//! A connection to the relay, whatever it is made of.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tunnel_common::budget::Carrier;
use tunnel_common::proof::Exporter;
use tunnel_common::quic::{describe, exporter, var_int};
use tunnel_common::stream::control::{ControlRecv, ControlSend};
use tunnel_common::stream::h2::connection::Broken;
use tunnel_common::stream::h2::stream::H2Stream;
use tunnel_common::stream::quic::{CONTROL_PRIORITY, QuicStream};
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::code::Code;

use super::movable::Movable;
use super::pulse::{Ends, Pulse};
use crate::proxy::target::Target;

/// A connection, on a socket of its own. Dropping it closes it.
#[derive(Debug)]
pub(crate) enum Connection {
    /// Over UDP.
    Quic {
        /// The connection.
        connection: quinn::Connection,
        /// Its socket.
        endpoint: Movable,
    },
    /// Over TCP.
    H2(H2Connection),
}

/// The handle of an HTTP/2 connection, which a task of its own moves.
#[derive(Debug)]
pub(crate) struct H2Connection {
    /// Where the relay is.
    pub(super) target: Target,
    pub(super) exporter: Exporter,
    /// Of its socket.
    pub(super) ends: Option<Ends>,
    /// Bytes that have come.
    pub(super) received: Arc<AtomicU64>,
    /// The control stream, when the relay has opened it.
    pub(super) control: Mutex<mpsc::Receiver<H2Stream>>,
    /// The visits' streams. At most as many wait as the relay may have open.
    pub(super) visits: Mutex<mpsc::Receiver<H2Stream>>,
    pub(super) end: Arc<End>,
    /// The driver.
    pub(super) driving: JoinSet<()>,
}

/// How an HTTP/2 connection ends, told between its handle and its driver.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Fires when the connection should be closed.
    pub(super) wanted: CancellationToken,
    /// Fires when it is over.
    over: CancellationToken,
    why: OnceLock<Closed>,
}

impl End {
    /// The connection is over. The first reason counts.
    pub(super) fn is_over(&self, why: Closed) {
        let _ = self.why.set(why);
        self.over.cancel();
    }
}

/// A connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Closed {
    /// On one line, what the relay said escaped.
    why: String,
    /// What the relay gave as its reason, if it could and did.
    pub(crate) code: Option<Code>,
    /// Whether nobody closed it: nothing came any more.
    pub(crate) is_silence: bool,
}

impl Closed {
    /// The relay has said why.
    pub(super) fn by_peer(code: Code) -> Self {
        Self {
            why: format!("closed by the peer: {code}"),
            code: Some(code),
            is_silence: false,
        }
    }

    /// The relay has not.
    pub(super) fn without_a_word() -> Self {
        Self {
            why: "closed by the peer".to_owned(),
            code: None,
            is_silence: false,
        }
    }
}

impl From<&Broken> for Closed {
    fn from(broken: &Broken) -> Self {
        Self {
            why: broken.to_string(),
            code: None,
            is_silence: matches!(broken, Broken::Silent),
        }
    }
}

impl From<&quinn::ConnectionError> for Closed {
    fn from(error: &quinn::ConnectionError) -> Self {
        let code = match error {
            quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into()),
            _ => None,
        };
        Self {
            why: describe(error),
            code,
            is_silence: *error == quinn::ConnectionError::TimedOut,
        }
    }
}

impl H2Connection {
    fn closed(&self) -> Closed {
        let why = self.end.why.get().cloned();
        why.unwrap_or_else(Closed::without_a_word)
    }
}

impl Connection {
    /// The control stream, which over QUIC we open, and the relay over HTTP/2. Once for each
    /// connection; the caller sets the deadline.
    pub(crate) async fn control(&self) -> Result<(ControlRecv, ControlSend), Closed> {
        match self {
            Self::Quic { connection, .. } => {
                let opened = connection.open_bi().await;
                let (send, recv) = opened.map_err(|error| Closed::from(&error))?;
                // Fails only on a stream that is closed already; then so does what follows.
                let _ = send.set_priority(CONTROL_PRIORITY);
                Ok((ControlRecv::Quic(recv), ControlSend::Quic(send)))
            }
            Self::H2(h2) => {
                let stream = h2.control.lock().await.recv().await;
                let halves = stream.and_then(|stream| stream.split().ok());
                let (read, write) = halves.ok_or_else(|| h2.closed())?;
                Ok((ControlRecv::H2(read), ControlSend::H2(write)))
            }
        }
    }

    /// The next visit's stream. Cancel safe.
    pub(crate) async fn accept_visit(&self) -> Result<TunnelStream, Closed> {
        match self {
            Self::Quic { connection, .. } => {
                let accepted = connection.accept_bi().await;
                let (send, recv) = accepted.map_err(|error| Closed::from(&error))?;
                Ok(TunnelStream::Quic(QuicStream::new(send, recv)))
            }
            Self::H2(h2) => {
                let accepted = h2.visits.lock().await.recv().await;
                accepted.map(TunnelStream::H2).ok_or_else(|| h2.closed())
            }
        }
    }

    /// Ready when the connection is over, with the reason. Cancel safe.
    pub(crate) async fn closed(&self) -> Closed {
        match self {
            Self::Quic { connection, .. } => Closed::from(&connection.closed().await),
            Self::H2(h2) => {
                h2.end.over.cancelled().await;
                h2.closed()
            }
        }
    }

    /// Where the relay is.
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::Quic { connection, .. } => connection.remote_address().into(),
            Self::H2(h2) => h2.target.clone(),
        }
    }

    /// For whoever watches whether the relay is still there.
    pub(crate) fn pulse(&self) -> Pulse {
        match self {
            Self::Quic {
                connection,
                endpoint,
            } => Pulse::Quic {
                connection: connection.clone(),
                endpoint: endpoint.clone(),
            },
            Self::H2(h2) => Pulse::H2 {
                received: h2.received.clone(),
                ends: h2.ends,
            },
        }
    }

    /// What only the two ends of this connection know.
    pub(crate) fn exporter(&self) -> Option<Exporter> {
        match self {
            Self::Quic { connection, .. } => exporter(connection),
            Self::H2(h2) => Some(h2.exporter),
        }
    }

    /// What it is made of, as far as memory goes.
    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic { .. } => Carrier::Quic,
            Self::H2(_) => Carrier::H2,
        }
    }

    /// Lowers what the relay may send ahead on all streams together. An HTTP/2 connection follows the
    /// budget by itself.
    pub(crate) fn lower_window(&self, bytes: u64) {
        if let Self::Quic { connection, .. } = self {
            connection.set_receive_window(var_int(bytes));
        }
    }

    /// What it is made of, for the log.
    pub(crate) fn transport(&self) -> &'static str {
        match self {
            Self::Quic { .. } => "QUIC",
            Self::H2(_) => "HTTP/2",
        }
    }

    /// Closes the connection, and waits until the relay has heard, for `at_most` that long.
    pub(crate) async fn close(self, code: Code, at_most: Duration) {
        // A relay that does not hear finds out by itself.
        match self {
            Self::Quic {
                connection,
                endpoint,
            } => {
                connection.close(code.into(), code.to_string().as_bytes());
                let _ = timeout(at_most, endpoint.endpoint().wait_idle()).await;
            }
            Self::H2(mut h2) => {
                h2.end.wanted.cancel();
                let _ = timeout(at_most, h2.driving.join_next()).await;
            }
        }
    }
}
