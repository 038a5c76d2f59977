//! One agent's connection, from handshake to end.
//!
//! ```text
//!  handshake ─▶ identity ─▶ control stream ─▶ Hello ─▶ Welcome ─▶ control ─▶ closed
//!      │            │              │            │    (in the registry while it publishes)
//!      └────────────┴──────────────┴────────────┴──▶ closed with a code; nobody heard of it
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;
use tracing::{Instrument as _, debug, info, info_span};
use tunnel_common::proof::Exporter;
use tunnel_common::stream::control::ControlSend;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::{ControlReader, ControlWriter};
use tunnel_common::wire::frame::{Frame, Hello, Limits, Refused, Welcome};

use super::asking::ask;
use super::connection::Connection;
use super::control::{self, Reader};
use super::error::SessionError;
use super::grant::MAX_ENDPOINTS;
use super::identity::Identity;
use super::mouth::Mouth;
use super::presence::Presence;
use super::tunnel::Tunnel;
use crate::drain;
use crate::state::State;

/// The sending half of a control stream.
type Writer = ControlWriter<ControlSend>;

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
        match timeout(state.timeouts.hello, Box::pin(greet(connection))).await {
            Ok(Ok(greeting)) => Box::pin(serve_agent(connection, proven, greeting, state)).await,
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
    let (reader, writer, hello) = greeting;
    let mut mouth = Mouth::new(writer, state.timeouts.control_write);
    let Proven { main, exporter } = proven;
    let tunnel = Tunnel::new(
        connection.clone(),
        state.budget.tunnel(connection.carrier()),
    );
    let mut presence = Presence::new(tunnel, hello, main, exporter);
    let talked = talk(reader, &mut mouth, &mut presence, state).await;
    let is_notable = presence.is_notable();
    drop(presence);
    if let Err(SessionError::Refused(refused)) = &talked {
        Box::pin(tell_refusal(connection, mouth, refused.clone(), state)).await;
    }
    tell_end(&talked, connection, is_notable, state);
    talked.unwrap_or_else(|error| error.code())
}

/// Says why the agent may not come or stay. One that does not hear it in time learns it from the
/// close instead; over TCP it is the agent that closes, since our close could overtake our words.
async fn tell_refusal(connection: &Connection, mouth: Mouth, refused: Refused, state: &State) {
    let telling = async {
        if mouth.say(Frame::Refused(refused)).is_ok() {
            mouth.end().await;
        }
        if let Connection::H2(_) = connection {
            connection.closed().await;
        }
    };
    let _ = timeout(state.timeouts.goodbye, telling).await;
}

/// What an agent that has published does is told; others come and go by the thousand.
fn tell_end(
    talked: &Result<Code, SessionError>,
    connection: &Connection,
    is_notable: bool,
    state: &State,
) {
    // Where the connection itself is gone, that is why everything on it failed.
    let why = match (talked, connection.close_reason()) {
        (Err(SessionError::Refused(refused)), _) => format!("turned away: {}", refused.text),
        (Ok(code), _) => format!("tunnel ended: {code}"),
        (Err(_), Some(reason)) => format!("tunnel ended: {reason}"),
        (Err(error), None) => format!("tunnel ended: {error}"),
    };
    let is_refusal = matches!(talked, Err(SessionError::Refused(_)));
    if is_notable {
        return info!("{why}");
    }
    if !is_refusal {
        return debug!("{why}");
    }
    match state.turned_away.ask() {
        Some(0) => info!("{why}"),
        Some(more) => info!("{why} (and {more} more)"),
        None => debug!("{why}"),
    }
}

/// Welcome, and the control stream from then on.
async fn talk(
    reader: Reader,
    mouth: &mut Mouth,
    presence: &mut Presence,
    state: &Arc<State>,
) -> Result<Code, SessionError> {
    if state.drain.has_begun() {
        return Err(SessionError::Refused(drain::refusal()));
    }
    // From before the first question on: no change of rules is missed.
    let rules = state.admission.changes();
    let answer = ask(presence.question(&state.names), state).await;
    let rev = answer.rev;
    let granted = presence.settle(answer, state);
    let granted = granted.map_err(SessionError::Refused)?;
    // No agent comes past a certificate that can not be read.
    let key = state.identity.fingerprint();
    let relay_id = key.map(|key| key.to_string()).unwrap_or_default();
    mouth.say(Frame::Welcome(Welcome {
        relay_id,
        features: vec![],
        limits: Limits {
            endpoints: MAX_ENDPOINTS,
        },
        public_port: state.names.port(),
        alpn_port: state.alpn_port,
        alternates: vec![],
        rev,
        granted,
    }))?;
    control::run(reader, mouth, presence, rules, state).await
}

/// Takes the control stream and the first frame.
async fn greet(connection: &Connection) -> Result<(Reader, Writer, Hello), SessionError> {
    let (recv, send) = connection.control().await?;
    let (mut reader, writer) = (ControlReader::new(recv), ControlWriter::new(send));
    loop {
        match reader.next().await? {
            Some(Frame::Hello(hello)) => return Ok((reader, writer, hello)),
            // What a newer agent says beyond us.
            Some(Frame::Unknown) => {}
            Some(_) => return Err(SessionError::Protocol("the first frame was no Hello")),
            None => {
                let why = "the control stream ended before a Hello";
                return Err(SessionError::Protocol(why));
            }
        }
    }
}
