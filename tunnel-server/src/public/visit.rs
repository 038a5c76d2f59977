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
use tunnel_common::splice::ended::{Cause, Ended, Limit};
use tunnel_common::splice::options::Options;
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::header::{StreamHeader, VisitId, canonical};
use tunnel_common::stream::quic::QuicStream;

use super::client_hello::{self, ClientHello, FirstFlight, ReadError};
use super::plain_http;
use super::refusal::{Alert, send_and_close};
use super::route::{Route, route};
use crate::agent::open::{Passage, open};
use crate::agent::registry::Candidate;
use crate::agent::tunnel::VisitStream;
use crate::state::State;
use crate::visits::Visit;

/// Serves one visitor. Dropping the future resets the visitor's connection and the stream.
pub(crate) async fn serve(mut visitor: TcpStream, address: SocketAddr, state: Arc<State>) {
    let receiving = receive(&mut visitor, address, &state);
    match state.shutdown.run_until_cancelled(receiving).await {
        Some(Reception::Pass(hello, passage)) => {
            pass(visitor, passage, hello, address, &state).await;
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
    Pass(ClientHello, Passage),
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
            Ok(passage) => return Reception::Pass(hello, passage),
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
async fn admit(state: &State, hello: &ClientHello, address: SocketAddr) -> Result<Passage, Alert> {
    let label = match route(&state.names, hello.server_name.as_deref()) {
        Route::Agent(label) => label,
        Route::Refuse(alert) => {
            debug!(%address, alert = alert.description(), "refused: not a name of ours");
            return Err(alert);
        }
    };
    match timeout(state.timeouts.stream_open, open(&state.registry, label)).await {
        Ok(Ok(passage)) => Ok(passage),
        Ok(Err(error)) => {
            debug!(%address, %label, "refused: {error}");
            // Whether an id is unknown or offline is nobody's business.
            Err(Alert::UNRECOGNIZED_NAME)
        }
        Err(_) => {
            debug!(%address, %label, "refused: no tunnel of the agent had room in time");
            Err(Alert::INTERNAL_ERROR)
        }
    }
}

/// Hands the visitor over to the agent, and stays until the visit is over.
async fn pass(
    visitor: TcpStream,
    passage: Passage,
    hello: ClientHello,
    address: SocketAddr,
    state: &State,
) {
    let Passage {
        to: Candidate { tunnel, endpoint },
        opened,
    } = passage;
    let VisitStream {
        mut stream,
        in_flight,
    } = opened;
    let id = state.visits.draw_id();
    let visit = state.visits.enter(id, tunnel.client(), endpoint, address);
    debug!(visit = %id, visitor = %visit.visitor, agent = %visit.agent.label(), "visit begins");

    let mut first = [header(&visitor, &hello, &visit, id), hello.bytes];
    if !begin(&mut stream, &mut first, &visit, state).await {
        tunnel.doubt();
        let last_words = Alert::INTERNAL_ERROR.to_bytes();
        return send_and_close(visitor, &last_words, state.timeouts.refusal_linger).await;
    }
    let options = Options {
        pool: state.pool.clone(),
        budget: tunnel.budget().clone(),
        timeouts: state.timeouts.splice,
        meter: visit.meter.clone(),
    };
    let ended = run(Splice::new(TcpEnd::new(visitor), stream, options), &visit).await;
    if matches!(ended.cause, Cause::Limit(Limit::NoAnswer)) {
        tunnel.doubt();
    }
    let (to_agent, to_visitor) = (ended.a_to_b, ended.b_to_a);
    debug!(visit = %id, to_agent, to_visitor, cause = ?ended.cause, "visit over");
    drop(in_flight);
}

/// Sends header and hello. No clock of the splice runs yet: an agent that takes no bytes would hold
/// the visitor for ever.
async fn begin(stream: &mut QuicStream, first: &mut [Bytes], visit: &Visit, state: &State) -> bool {
    let sending = timeout(state.timeouts.stream_open, stream.send_all(first));
    tokio::select! {
        sent = sending => matches!(sent, Ok(Ok(()))),
        _ = visit.ended() => false,
    }
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
