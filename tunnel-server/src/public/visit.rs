//! One visit, from accept to its end: the relay's half of the story.
//!
//! 1. Read the ClientHello under one deadline.
//! 2. Route by the server name; refuse what is not ours.
//! 3. Open a stream to the agent, with the header and the visitor's bytes in one write.
//! 4. Splice until it is over.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::identity::Label;
use tunnel_common::splice::ended::Ended;
use tunnel_common::splice::options::Options;
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::header::{StreamHeader, VisitId, canonical};
use tunnel_common::stream::quic::QuicStream;

use super::client_hello::{self, ClientHello, FirstFlight, ReadError};
use super::plain_http;
use super::refusal::{Alert, send_and_close};
use super::route::{Route, route};
use crate::agent::tunnel::{OpenError, OpenedStream, open_on_any};
use crate::state::State;
use crate::visits::Visit;

/// Serves one visitor. Dropping the future resets the visitor's connection and the stream.
pub(crate) async fn serve(mut visitor: TcpStream, address: SocketAddr, state: Arc<State>) {
    let receiving = receive(&mut visitor, address, &state);
    match state.shutdown.run_until_cancelled(receiving).await {
        Some(Reception::Pass(hello, opened)) => {
            pass(visitor, opened, hello, address, &state).await;
        }
        Some(Reception::Refuse(last_words)) => {
            send_and_close(visitor, &last_words, state.timeouts.refusal_linger).await;
        }
        Some(Reception::Close) | None => {}
    }
}

/// What becomes of a visitor.
enum Reception {
    /// He goes to an agent.
    Pass(ClientHello, OpenedStream),
    /// He is told something, and goes.
    Refuse(Vec<u8>),
    /// There is nobody to be told anything.
    Close,
}

/// Reads what the visitor wants, and finds the agent for it.
async fn receive(visitor: &mut TcpStream, address: SocketAddr, state: &State) -> Reception {
    let reading = timeout(state.timeouts.client_hello, client_hello::read(visitor));
    let refusal = match reading.await {
        Ok(Ok(FirstFlight::Tls(hello))) => match admit(state, &hello, address).await {
            Ok(opened) => return Reception::Pass(hello, opened),
            Err(alert) => alert.to_bytes().to_vec(),
        },
        Ok(Ok(FirstFlight::Http(head))) => redirect(state, &head),
        Ok(Err(ReadError::Refused { alert, why })) => {
            debug!(%address, %why, "refused: no TLS that could be routed");
            alert.to_bytes().to_vec()
        }
        Ok(Err(ReadError::Closed | ReadError::Io(_))) => return Reception::Close,
        Err(_) => {
            debug!(%address, "closed: no ClientHello in time");
            return Reception::Close;
        }
    };
    Reception::Refuse(refusal)
}

/// Finds the visitor a stream to an agent, or the alert that he gets instead.
async fn admit(
    state: &State,
    hello: &ClientHello,
    address: SocketAddr,
) -> Result<OpenedStream, Alert> {
    let label = match route(&state.names, hello.server_name.as_deref()) {
        Route::Agent(label) => label,
        Route::Refuse(alert) => {
            debug!(%address, alert = alert.description(), "refused: not a name of ours");
            return Err(alert);
        }
    };
    open(state, label).await.map_err(|error| {
        debug!(%address, %label, %error, "refused");
        match error {
            // Whether an id is unknown or offline is nobody's business.
            OpenError::Offline => Alert::UNRECOGNIZED_NAME,
            OpenError::Timeout => Alert::INTERNAL_ERROR,
        }
    })
}

async fn open(state: &State, label: Label) -> Result<OpenedStream, OpenError> {
    let tunnels = state.registry.tunnels(label);
    timeout(state.timeouts.stream_open, open_on_any(&tunnels))
        .await
        .unwrap_or(Err(OpenError::Timeout))
}

/// Hands the visitor over to the agent, and stays until the visit is over.
async fn pass(
    visitor: TcpStream,
    opened: OpenedStream,
    hello: ClientHello,
    address: SocketAddr,
    state: &State,
) {
    let OpenedStream {
        tunnel,
        mut stream,
        in_flight,
    } = opened;
    let id = state.visits.draw_id();
    let visit = state
        .visits
        .enter(id, tunnel.client(), tunnel.endpoint().clone(), address);
    debug!(visit = %id, visitor = %visit.visitor, agent = %visit.agent.label(), "visit begins");

    let header = header(&visitor, &hello, &visit, id);
    let mut first = [header, hello.bytes];
    match timeout(state.timeouts.stream_open, stream.send_all(&mut first)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(visit = %id, %error, "the tunnel broke"),
        Err(_) => return debug!(visit = %id, "the agent does not take the visitor's hello"),
    }
    let options = Options {
        pool: state.pool.clone(),
        budget: tunnel.budget().clone(),
        timeouts: state.timeouts.splice,
        meter: visit.meter.clone(),
    };
    drop(tunnel);
    let ended = run(Splice::new(TcpEnd::new(visitor), stream, options), &visit).await;
    debug!(visit = %id, to_agent = ended.a_to_b, to_visitor = ended.b_to_a, cause = ?ended.cause, "visit over");
    drop(in_flight);
}

async fn run(mut splice: Splice<TcpEnd, QuicStream>, visit: &Visit) -> Ended {
    tokio::select! {
        ended = &mut splice => ended,
        code = visit.ended() => splice.abort(code),
    }
}

/// The header of the visit's stream, encoded.
fn header(visitor: &TcpStream, hello: &ClientHello, visit: &Visit, id: VisitId) -> Bytes {
    // A socket that no longer knows its own address breaks at the first byte; till then any will do.
    let public = visitor.local_addr().map_or(visit.visitor, canonical);
    let header = StreamHeader {
        visitor: visit.visitor,
        public,
        server_name: hello.server_name.clone(),
        alpn: hello.alpn.first().cloned(),
        visit: id,
        endpoint: visit.endpoint.clone(),
    };
    header.encode().into()
}

/// The answer to plain HTTP: the same address with TLS, if the host is one that we may serve.
fn redirect(state: &State, head: &[u8]) -> Vec<u8> {
    let is_ours = |host: &str| matches!(route(&state.names, Some(host)), Route::Agent(_));
    plain_http::answer(head, is_ours, state.names.port())
}
