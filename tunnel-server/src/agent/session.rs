//! One agent's connection, from handshake to end.
//!
//! ```text
//!  handshake ─▶ identity ─▶ control stream ─▶ Hello ─▶ Welcome ─▶ control ─▶ closed
//!      │            │              │            │    (in the registry from Hello on)
//!      └────────────┴──────────────┴────────────┴──▶ closed with a code; nobody heard of it
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tracing::{Instrument as _, debug, info, info_span};
use tunnel_common::escape::Escaped;
use tunnel_common::proof::Exporter;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Hello, Limits, Welcome};

use super::connection::Connection;
use super::control::{self, Reader, Writer, say, turn_away};
use super::error::SessionError;
use super::grant::MAX_ENDPOINTS;
use super::identity::Identity;
use super::presence::Presence;
use super::registry::core::Place;
use super::tunnel::Tunnel;
use crate::state::State;

/// Serves one connection after its handshake, and closes it.
pub(super) async fn serve(
    connection: &Connection,
    proven: Proven,
    address: SocketAddr,
    state: &Arc<State>,
) {
    let span = info_span!("agent", id = %proven.main.id.label(), %address);
    let code = attend(connection, proven, state).instrument(span).await;
    connection.close(code);
}

/// What the handshake proved.
pub(super) struct Proven {
    pub(super) main: Identity,
    pub(super) exporter: Exporter,
}

/// Everything after the handshake, until the connection should be closed. Says with which code.
async fn attend(connection: &Connection, proven: Proven, state: &Arc<State>) -> Code {
    let talking = async {
        match timeout(state.timeouts.hello, greet(connection)).await {
            Ok(Ok(greeting)) => serve_agent(connection, proven, greeting, state).await,
            // Anybody can get as far as here, and is no event.
            Ok(Err(error)) => {
                debug!("no tunnel: {error}");
                error.code()
            }
            Err(_) => {
                debug!("no tunnel: no Hello in time");
                Code::Protocol
            }
        }
    };
    state
        .shutdown
        .run_until_cancelled(talking)
        .await
        .unwrap_or(Code::Draining)
}

/// An agent that has said Hello: the log tells when it comes and how it goes.
async fn serve_agent(
    connection: &Connection,
    proven: Proven,
    greeting: (Reader, Writer, Hello),
    state: &Arc<State>,
) -> Code {
    let (reader, mut writer, hello) = greeting;
    let talked = talk(connection, proven, reader, &mut writer, hello, state).await;
    if let Err(SessionError::Refused(_)) = &talked {
        // An agent that does not hear it in time learns it from the close instead. Over TCP it is the
        // agent that closes: our close could overtake what we have said.
        let told = async {
            writer.into_inner().end().await;
            if let Connection::H2(_) = connection {
                connection.closed().await;
            }
        };
        let _ = timeout(state.timeouts.goodbye, told).await;
    }
    // Where the connection itself is gone, that is why everything on it failed.
    match (&talked, connection.close_reason()) {
        // Anybody may come and be refused, again and again.
        (Err(SessionError::Refused(refused)), _) => {
            if let Some(suppressed) = state.turned_away.ask() {
                info!(suppressed, "turned away: {}", refused.text);
            }
        }
        (Ok(code), _) => info!("tunnel ended: {code}"),
        (Err(_), Some(reason)) => info!("tunnel ended: {reason}"),
        (Err(error), None) => info!("tunnel ended: {error}"),
    }
    talked.unwrap_or_else(|error| error.code())
}

/// Welcome, and the control stream from then on.
async fn talk(
    connection: &Connection,
    proven: Proven,
    reader: Reader,
    writer: &mut Writer,
    hello: Hello,
    state: &Arc<State>,
) -> Result<Code, SessionError> {
    // From before the first question on: no change of rules is missed.
    let rules = state.admission.changes();
    let Proven { main, exporter } = proven;
    let tunnel = Tunnel::new(connection.clone(), state.budget.tunnel());
    let mut presence = Presence::new(tunnel, Place::from(&hello), main, exporter);
    let granted = match presence.want(hello.rev, hello.wanted, state).await {
        Ok(granted) => granted,
        Err(refused) => return Err(turn_away(writer, refused, state).await),
    };
    let version = Escaped(&hello.agent_version);
    let agents = state.registry.agents();
    info!(%version, epoch = hello.epoch, agents, "an agent is here");
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
    say(writer, &Frame::Welcome(welcome), state).await?;
    control::run(reader, writer, presence, rules, state).await
}

/// Takes the control stream and the first frame.
async fn greet(connection: &Connection) -> Result<(Reader, Writer, Hello), SessionError> {
    let (recv, send) = connection.control().await?;
    let (mut reader, writer) = (ControlReader::new(recv), ControlWriter::new(send));
    match reader.next().await? {
        Some(Frame::Hello(hello)) => Ok((reader, writer, hello)),
        Some(_) => Err(SessionError::Protocol("the first frame was no Hello")),
        None => Err(SessionError::Protocol(
            "the control stream ended before a Hello",
        )),
    }
}
