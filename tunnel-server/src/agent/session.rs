//! One agent's connection, from handshake to end.
//!
//! ```text
//!  handshake ─▶ identity ─▶ control stream ─▶ Hello ─▶ Welcome ─▶ control ─▶ closed
//!      │            │              │            │         (registered while granted)
//!      └────────────┴──────────────┴────────────┴──▶ closed with a code; nobody heard of it
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::{Instrument as _, debug, info, info_span};
use tunnel_common::escape::Escaped;
use tunnel_common::identity::ClientId;
use tunnel_common::stream::quic::CONTROL_PRIORITY;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlError, ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Hello, Limits, Refused, Welcome};

use super::control::{self, Presence};
use super::grant::MAX_ENDPOINTS;
use super::identity;
use crate::state::State;

/// The receiving half of a control stream.
pub(super) type Reader = ControlReader<RecvStream>;
/// The sending half of a control stream.
pub(super) type Writer = ControlWriter<SendStream>;

/// Why a session ended otherwise than by the peer's closing it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The connection broke, or the agent closed it.
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The control stream can not be used.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The agent took too long.
    #[error("no Hello in time")]
    Timeout,
    /// The agent did something else than it should.
    #[error("{0}")]
    Protocol(&'static str),
    /// The agent was told why it is not taken in.
    #[error("refused: {0}")]
    Refused(String),
}

impl SessionError {
    /// What the agent is told.
    fn code(&self) -> Code {
        match self {
            Self::Connection(_) => Code::None,
            Self::Control(error) if !error.is_peers_fault() => Code::None,
            Self::Control(_) | Self::Timeout | Self::Protocol(_) => Code::Protocol,
            Self::Refused(_) => Code::Refused,
        }
    }
}

/// Serves one connection attempt to its end. Dropping the future closes the connection.
pub(crate) async fn serve(incoming: Incoming, permit: OwnedSemaphorePermit, state: Arc<State>) {
    let address = incoming.remote_address();
    let handshake = async { Ok::<_, quinn::ConnectionError>(incoming.accept()?.await?) };
    let connection = match timeout(state.timeouts.quic.handshake, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%address, %error, "no tunnel: the handshake failed"),
        Err(_) => return debug!(%address, "no tunnel: the handshake took too long"),
    };
    drop(permit);
    let Some(client) = identity::proven(&connection) else {
        connection.close(Code::Protocol.into(), b"no identity");
        return;
    };
    let span = info_span!("agent", id = %client.label(), %address);
    let code = match attend(&connection, client, address, &state)
        .instrument(span.clone())
        .await
    {
        Ok(code) => code,
        Err(error) => {
            span.in_scope(|| info!(%error, "tunnel ended"));
            error.code()
        }
    };
    connection.close(code.into(), code.to_string().as_bytes());
}

/// Everything after the handshake. Says with which code to close.
async fn attend(
    connection: &Connection,
    client: ClientId,
    address: SocketAddr,
    state: &Arc<State>,
) -> Result<Code, SessionError> {
    let greeting = timeout(state.timeouts.hello, greet(connection));
    let (reader, mut writer, hello) = greeting.await.map_err(|_| SessionError::Timeout)??;
    let mut presence = Presence::new(connection.clone(), client, &hello, state.clone());
    let granted = match presence.want(&hello.wanted) {
        Ok(granted) => granted,
        Err(refused) => return refuse(writer, refused, state).await,
    };
    let version = Escaped(&hello.agent_version);
    info!(%version, epoch = hello.epoch, agents = state.registry.agents(), "tunnel serves");
    debug!(instance = ?hello.instance, %address, "its place");
    let welcome = Welcome {
        relay_id: state.fingerprint.to_string(),
        features: vec![],
        limits: Limits {
            endpoints: MAX_ENDPOINTS,
        },
        public_port: state.names.port(),
        alpn_port: state.alpn_port,
        alternates: vec![],
        rev: hello.rev,
        granted,
    };
    writer.send(&Frame::Welcome(welcome)).await?;
    control::run(reader, writer, &mut presence, state).await
}

/// Takes the control stream and the first frame.
async fn greet(connection: &Connection) -> Result<(Reader, Writer, Hello), SessionError> {
    let (send, recv) = connection.accept_bi().await?;
    // Fails only on a stream that is closed already; then so does what follows.
    let _ = send.set_priority(CONTROL_PRIORITY);
    let (mut reader, writer) = (ControlReader::new(recv), ControlWriter::new(send));
    match reader.next().await? {
        Some(Frame::Hello(hello)) => Ok((reader, writer, hello)),
        Some(_) => Err(SessionError::Protocol("the first frame was no Hello")),
        None => Err(SessionError::Protocol(
            "the control stream ended before a Hello",
        )),
    }
}

/// Tells the agent why it is not taken in, and waits until it has heard.
async fn refuse(mut writer: Writer, refused: Refused, state: &State) -> Result<Code, SessionError> {
    let text = refused.text.clone();
    writer.send(&Frame::Refused(refused)).await?;
    let mut stream = writer.into_inner();
    if stream.finish().is_ok() {
        let heard = stream.stopped();
        // An agent that does not acknowledge in time learns it from the close instead.
        let _ = timeout(state.timeouts.goodbye, heard).await;
    }
    Err(SessionError::Refused(text))
}
