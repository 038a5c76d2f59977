//! One agent's connection, whatever it is made of.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use tunnel_common::budget::Carrier;
use tunnel_common::h2::Purpose;
use tunnel_common::quic::{describe, var_int};
use tunnel_common::stream::control::{ControlRecv, ControlSend};
use tunnel_common::stream::h2::connection::Opener;
use tunnel_common::stream::quic::{CONTROL_PRIORITY, QuicStream};
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::code::Code;

/// A connection over which streams can be opened. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Connection {
    /// Over UDP.
    Quic(quinn::Connection),
    /// Over TCP.
    H2(H2Connection),
}

/// The handle of an HTTP/2 connection, which a task of its own moves.
#[derive(Clone, Debug)]
pub(crate) struct H2Connection {
    opener: Opener,
    end: Arc<End>,
}

/// How an HTTP/2 connection ends, told between its handles and its driver.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Fires when the connection should be closed …
    wanted: CancellationToken,
    /// … by this, because of that.
    last_word: OnceLock<(Opener, Code)>,
    /// Fires when it is over.
    over: CancellationToken,
    why: OnceLock<String>,
}

impl End {
    /// Ready when the connection should be closed. Cancel safe.
    pub(crate) async fn wanted(&self) {
        self.wanted.cancelled().await;
    }

    /// Tells the agent why the connection is closed; ready when it will not hear. An agent that hears
    /// closes the connection itself, since our close could overtake our words.
    pub(crate) async fn tell(&self) {
        let Some((opener, code)) = self.last_word.get() else {
            return;
        };
        if opener.close(*code).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }

    /// The connection is over. The first reason counts.
    pub(crate) fn is_over(&self, why: String) {
        let _ = self.why.set(why);
        self.over.cancel();
    }
}

/// The connection is gone.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("the connection is gone: {0}")]
pub(crate) struct Gone(pub(crate) String);

impl H2Connection {
    /// The handle of the connection that `opener` opens streams on, and whose driver will tell `end`.
    pub(crate) fn new(opener: Opener, end: Arc<End>) -> Self {
        Self { opener, end }
    }

    async fn open(&self, purpose: Purpose) -> Result<TunnelStream, Gone> {
        let opened = self.opener.open(purpose).await;
        let stream = opened.map_err(|error| Gone(error.to_string()))?;
        Ok(TunnelStream::H2(stream))
    }

    async fn control(&self) -> Result<(ControlRecv, ControlSend), Gone> {
        let gone = |error: &dyn std::error::Error| Gone(error.to_string());
        let opened = self.opener.open(Purpose::Control).await;
        let stream = opened.map_err(|error| gone(&error))?;
        let (read, write) = stream.split().map_err(|error: io::Error| gone(&error))?;
        Ok((ControlRecv::H2(read), ControlSend::H2(write)))
    }
}

impl Connection {
    /// Opens a stream for a visit. Waits while the agent grants no more, so the caller sets a
    /// deadline. Cancel safe.
    pub(crate) async fn open(&self) -> Result<TunnelStream, Gone> {
        match self {
            Self::Quic(connection) => {
                let opened = connection.open_bi().await;
                let (send, recv) = opened.map_err(|error| Gone(describe(&error)))?;
                Ok(TunnelStream::Quic(QuicStream::new(send, recv)))
            }
            Self::H2(connection) => connection.open(Purpose::Visit).await,
        }
    }

    /// The control stream: over QUIC the agent opens it, over HTTP/2 only we can. The caller sets the
    /// deadline.
    pub(crate) async fn control(&self) -> Result<(ControlRecv, ControlSend), Gone> {
        match self {
            Self::Quic(connection) => {
                let accepted = connection.accept_bi().await;
                let (send, recv) = accepted.map_err(|error| Gone(describe(&error)))?;
                // Fails only on a stream that is closed already; then so does what follows.
                let _ = send.set_priority(CONTROL_PRIORITY);
                Ok((ControlRecv::Quic(recv), ControlSend::Quic(send)))
            }
            Self::H2(connection) => connection.control().await,
        }
    }

    /// Ready when the connection is over. Cancel safe.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Quic(connection) => drop(connection.closed().await),
            Self::H2(connection) => connection.end.over.cancelled().await,
        }
    }

    /// Why it is over, if it is.
    pub(crate) fn close_reason(&self) -> Option<String> {
        match self {
            Self::Quic(connection) => connection.close_reason().as_ref().map(describe),
            Self::H2(connection) => connection.end.why.get().cloned(),
        }
    }

    /// Ends it, and every stream, as soon as the agent has heard why, or does not within the time that
    /// its driver gives it.
    pub(crate) fn close(&self, code: Code) {
        match self {
            Self::Quic(connection) => {
                connection.close(code.into(), code.to_string().as_bytes());
            }
            Self::H2(connection) => {
                // The first reason counts.
                let _ = connection
                    .end
                    .last_word
                    .set((connection.opener.clone(), code));
                connection.end.wanted.cancel();
            }
        }
    }

    /// What it is made of, as far as memory goes.
    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic(_) => Carrier::Quic,
            Self::H2(_) => Carrier::H2,
        }
    }

    /// Lowers what the agent may send ahead on all streams together. An HTTP/2 connection follows the
    /// budget by itself.
    pub(crate) fn lower_window(&self, bytes: u64) {
        if let Self::Quic(connection) = self {
            connection.set_receive_window(var_int(bytes));
        }
    }
}
