//! One visit, from accept to its end: the relay's half of the story.
//!
//! 1. Find out who comes: from a trusted proxy, by the header before all else.
//! 2. Read the ClientHello, under one deadline for both.
//! 3. Route by the server name; refuse what is not ours.
//! 4. Open a stream to the agent, with the header and the visitor's bytes in one write; if the
//!    tunnel has just died, on the next one.
//! 5. Splice until it is over.
//!
//! Whatever is logged on the way stands in a span with the visit's id and the visitor's address.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use first_flight::alert::Alert;
use first_flight::client_hello::{self, ClientHello, FirstFlight, ReadError};
use first_flight::plain_http;
use first_flight::proxy_header::{Addresses, HeaderError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument as _, debug, debug_span};
use tunnel_common::identity::Label;
use tunnel_common::splice::ended::{Cause, Ended, Limit};
use tunnel_common::splice::options::Options;
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::header::{StreamHeader, VisitId};
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::EndpointRef;

use super::arrival::addresses;
use super::refusal::send_and_close;
use super::route::{Route, route};
use crate::agent::h2;
use crate::agent::open::{NotOpened, Passage, open};
use crate::agent::registry::Candidate;
use crate::agent::right::Right;
use crate::agent::tunnel::{Tunnel, VisitStream};
use crate::state::State;
use crate::visits::Visit;

/// How often a visitor is taken to a tunnel that has just died before he is sent away.
const MAX_ATTEMPTS: usize = 3;

/// Serves one visitor on the connection of `peer`. Dropping the future ends the visitor's
/// connection; once bytes flow, by a reset, and that of the stream too.
pub(crate) async fn serve(mut connection: TcpStream, peer: SocketAddr, state: Arc<State>) {
    let deadline = Instant::now() + state.timeouts.client_hello;
    let id = state.visits.draw_id();
    let arriving = arrive(&mut connection, peer, deadline, &state)
        .instrument(debug_span!("visit", %id, visitor = %peer));
    let Some(Some(addresses)) = state.shutdown.run_until_cancelled(arriving).await else {
        return;
    };
    let span = debug_span!("visit", %id, visitor = %addresses.visitor);
    let visitor = Visitor {
        connection,
        addresses,
        id,
    };
    converse(visitor, deadline, &state).instrument(span).await;
}

/// A visitor whose address is known.
struct Visitor {
    connection: TcpStream,
    addresses: Addresses,
    id: VisitId,
}

/// Finds out who came; `None` if he is to be closed.
async fn arrive(
    connection: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
    state: &State,
) -> Option<Addresses> {
    let arriving = addresses(connection, peer, &state.trusted_proxies);
    match timeout_at(deadline, arriving).await {
        Ok(Ok(addresses)) => Some(addresses),
        Ok(Err(HeaderError::Closed | HeaderError::Io(_))) => None,
        Ok(Err(why)) => {
            debug!(%why, "closed: a trusted proxy does not say who comes");
            None
        }
        Err(_) => {
            debug!("closed: a trusted proxy does not say in time who comes");
            None
        }
    }
}

/// Takes in what the visitor wants, and serves or refuses him.
async fn converse(mut visitor: Visitor, deadline: Instant, state: &Arc<State>) {
    let receiving = receive(&mut visitor, deadline, state);
    match state.shutdown.run_until_cancelled(receiving).await {
        Some(Reception::Pass(passage)) => pass(visitor, *passage, state).await,
        Some(Reception::Api(hello)) => {
            debug!("an agent comes through the public port");
            let address = visitor.addresses.visitor;
            // Apart: a visitor must not pay for the room that an agent needs.
            let agent = h2::serve(hello, visitor.connection, address, state.clone());
            Box::pin(agent).await;
        }
        Some(Reception::Refuse(last_words)) => {
            let linger = state.timeouts.refusal_linger;
            send_and_close(visitor.connection, &last_words, linger).await;
        }
        Some(Reception::Close) | None => {}
    }
}

/// What becomes of a visitor.
enum Reception {
    /// His hello is on its way to an agent.
    Pass(Box<Passage>),
    /// He is an agent; these bytes of his have been read.
    Api(Bytes),
    /// He is told something, and goes.
    Refuse(Vec<u8>),
    /// There is nobody to be told anything.
    Close,
}

/// Reads what the visitor wants, and takes it to the agent.
async fn receive(visitor: &mut Visitor, deadline: Instant, state: &State) -> Reception {
    let reading = timeout_at(deadline, client_hello::read(&mut visitor.connection));
    let refusal = match reading.await {
        Ok(Ok(FirstFlight::Tls(hello))) => {
            match route(&state.names, hello.server_name.as_deref(), &hello.alpn) {
                Route::Api => return Reception::Api(hello.bytes),
                Route::Refuse(alert) => {
                    debug!(alert = alert.description(), "refused: not a name of ours");
                    alert.to_bytes().to_vec()
                }
                Route::Agent(label) => match admit(state, label, &hello, visitor).await {
                    Ok(passage) => return Reception::Pass(Box::new(passage)),
                    Err(alert) => alert.to_bytes().to_vec(),
                },
            }
        }
        Ok(Ok(FirstFlight::Http(head))) => redirect(state, &head),
        Ok(Err(ReadError::Refused { alert, why })) => {
            debug!(%why, "refused: no TLS that could be routed");
            alert.to_bytes().to_vec()
        }
        // He closed, or the connection broke.
        Ok(Err(_)) => return Reception::Close,
        Err(_) => {
            debug!("closed: no ClientHello in time");
            return Reception::Close;
        }
    };
    Reception::Refuse(refusal)
}

/// Takes the visitor's hello to an agent, or says with which alert he is sent away.
async fn admit(
    state: &State,
    label: Label,
    hello: &ClientHello,
    visitor: &Visitor,
) -> Result<Passage, Alert> {
    let header = |endpoint| StreamHeader {
        visitor: visitor.addresses.visitor,
        public: visitor.addresses.public,
        server_name: hello.server_name.clone(),
        alpn: hello.alpn.first().cloned(),
        visit: visitor.id,
        endpoint,
    };
    let mut trying = None;
    let beginning = begin(state, label, header, &hello.bytes, &mut trying);
    match timeout(state.timeouts.stream_open, beginning).await {
        Ok(Ok(passage)) => Ok(passage),
        Ok(Err(why)) => {
            debug!(%label, "refused: {why}");
            // Whether an id is unknown or offline is nobody's business.
            Err(Alert::UNRECOGNIZED_NAME)
        }
        Err(_) => {
            debug!(%label, "refused: no tunnel of the agent took the visit in time");
            if let Some(tunnel) = trying {
                state.registry.doubt(label, &tunnel);
            }
            Err(Alert::INTERNAL_ERROR)
        }
    }
}

/// Opens a stream and sends header and hello, in one write; on the next tunnel if one dies at it.
/// `trying` is the tunnel that has the hello now.
async fn begin(
    state: &State,
    label: Label,
    header: impl Fn(EndpointRef) -> StreamHeader,
    hello: &Bytes,
    trying: &mut Option<Arc<Tunnel>>,
) -> Result<Passage, NotOpened> {
    for _ in 0..MAX_ATTEMPTS {
        let mut passage = match open(&state.registry, label).await {
            Ok(passage) => passage,
            Err(NotOpened::Offline) => break,
            // Another one may serve by now.
            Err(NotOpened::Closed) => continue,
        };
        let Candidate {
            tunnel,
            right,
            endpoint,
            ..
        } = &passage.to;
        if right.is_revoked() {
            // It was admitted when we began to wait for a stream, and is no more.
            continue;
        }
        *trying = Some(tunnel.clone());
        let header = Bytes::from(header(endpoint.clone()).encode());
        match passage
            .opened
            .stream
            .send_all(&mut [header, hello.clone()])
            .await
        {
            Ok(()) => return Ok(passage),
            Err(error) => {
                debug!(%label, %error, "a tunnel broke before the visit began");
                tunnel.doubt();
            }
        }
    }
    Err(NotOpened::Offline)
}

/// Joins the visitor and the agent, and stays until the visit is over.
async fn pass(visitor: Visitor, passage: Passage, state: &State) {
    let Passage {
        to:
            Candidate {
                tunnel,
                right,
                endpoint,
                ..
            },
        opened: VisitStream { stream, in_flight },
    } = passage;
    let Visitor { connection, id, .. } = visitor;
    let visit = state.visits.enter(id, right.agent(), endpoint);
    let (agent, endpoint) = (visit.agent.label(), &visit.endpoint);
    debug!(%agent, %endpoint, "visit begins");
    let options = Options {
        pool: state.pool.clone(),
        budget: tunnel.budget().clone(),
        timeouts: state.timeouts.splice,
        meter: visit.meter.clone(),
    };
    let ended = run(
        Splice::new(TcpEnd::new(connection), stream, options),
        &visit,
        &right,
    )
    .await;
    if matches!(ended.cause, Cause::Limit(Limit::NoAnswer)) {
        state.registry.doubt(agent, &tunnel);
    }
    let (to_agent, to_visitor) = (ended.a_to_b, ended.b_to_a);
    debug!(to_agent, to_visitor, cause = ?ended.cause, "visit over");
    drop(in_flight);
}

async fn run(mut splice: Splice<TcpEnd, TunnelStream>, visit: &Visit, right: &Right) -> Ended {
    tokio::select! {
        ended = &mut splice => ended,
        code = visit.ended() => splice.abort(code),
        () = right.revoked() => splice.abort(Code::Policy),
    }
}

/// The answer to plain HTTP: the same address with TLS, if the host is one that we may serve.
fn redirect(state: &State, head: &[u8]) -> Vec<u8> {
    let is_ours = |host: &str| matches!(route(&state.names, Some(host), &[]), Route::Agent(_));
    plain_http::answer(head, is_ours, state.names.port())
}
