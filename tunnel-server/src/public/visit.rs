//! One visit, from accept to its end: the relay's half of the story.
//!
//! 1. Read the ClientHello under one deadline.
//! 2. Route by the server name; refuse what is not ours.
//! 3. Open a stream to the agent, with the header and the visitor's bytes in one write; if the
//!    tunnel has just died, on the next one.
//! 4. Splice until it is over.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;
use tunnel_common::identity::Label;
use tunnel_common::splice::ended::{Cause, Ended, Limit};
use tunnel_common::splice::options::Options;
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::header::{StreamHeader, VisitId, canonical};
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::frame::EndpointRef;

use super::client_hello::{self, ClientHello, FirstFlight, ReadError};
use super::plain_http;
use super::refusal::{Alert, send_and_close};
use super::route::{Route, route};
use crate::agent::open::{Offline, Passage, open};
use crate::agent::registry::Candidate;
use crate::agent::tunnel::{Tunnel, VisitStream};
use crate::state::State;
use crate::visits::Visit;

/// How often a visitor is taken to a tunnel that has just died before he is sent away.
const MAX_ATTEMPTS: usize = 3;

/// Serves one visitor. Dropping the future ends the visitor's connection; once bytes flow, by a
/// reset, and that of the stream too.
pub(crate) async fn serve(mut visitor: TcpStream, address: SocketAddr, state: Arc<State>) {
    let receiving = receive(&mut visitor, address, &state);
    match state.shutdown.run_until_cancelled(receiving).await {
        Some(Reception::Pass(begun)) => pass(visitor, *begun, address, &state).await,
        Some(Reception::Refuse(last_words)) => {
            send_and_close(visitor, &last_words, state.timeouts.refusal_linger).await;
        }
        Some(Reception::Close) | None => {}
    }
}

/// What becomes of a visitor.
enum Reception {
    /// His hello is on its way to an agent.
    Pass(Box<Begun>),
    /// He is told something, and goes.
    Refuse(Vec<u8>),
    /// There is nobody to be told anything.
    Close,
}

/// A visit whose stream has its first bytes.
struct Begun {
    id: VisitId,
    passage: Passage,
}

/// Reads what the visitor wants, and takes it to the agent.
async fn receive(visitor: &mut TcpStream, address: SocketAddr, state: &State) -> Reception {
    let reading = timeout(state.timeouts.client_hello, client_hello::read(visitor));
    let refusal = match reading.await {
        Ok(Ok(FirstFlight::Tls(hello))) => {
            // A socket that no longer knows its own address breaks soon; till then any will do.
            let public = visitor.local_addr().map_or(address, canonical);
            match admit(state, &hello, address, public).await {
                Ok(begun) => return Reception::Pass(Box::new(begun)),
                Err(alert) => alert.to_bytes().to_vec(),
            }
        }
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

/// Takes the visitor's hello to an agent, or says with which alert he is sent away.
async fn admit(
    state: &State,
    hello: &ClientHello,
    address: SocketAddr,
    public: SocketAddr,
) -> Result<Begun, Alert> {
    let label = match route(&state.names, hello.server_name.as_deref()) {
        Route::Agent(label) => label,
        Route::Refuse(alert) => {
            debug!(%address, alert = alert.description(), "refused: not a name of ours");
            return Err(alert);
        }
    };
    let id = state.visits.draw_id();
    let header = |endpoint| StreamHeader {
        visitor: address,
        public,
        server_name: hello.server_name.clone(),
        alpn: hello.alpn.first().cloned(),
        visit: id,
        endpoint,
    };
    let mut trying = None;
    let beginning = begin(state, label, header, &hello.bytes, &mut trying);
    match timeout(state.timeouts.stream_open, beginning).await {
        Ok(Ok(passage)) => Ok(Begun { id, passage }),
        Ok(Err(Offline)) => {
            debug!(%address, %label, "refused: {Offline}");
            // Whether an id is unknown or offline is nobody's business.
            Err(Alert::UNRECOGNIZED_NAME)
        }
        Err(_) => {
            debug!(%address, %label, "refused: no tunnel of the agent took the visit in time");
            if let Some(tunnel) = trying {
                tunnel.doubt();
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
) -> Result<Passage, Offline> {
    for _ in 0..MAX_ATTEMPTS {
        let mut passage = open(&state.registry, label).await?;
        let Candidate {
            tunnel, endpoint, ..
        } = &passage.to;
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
    Err(Offline)
}

/// Joins the visitor and the agent, and stays until the visit is over.
async fn pass(visitor: TcpStream, begun: Begun, address: SocketAddr, state: &State) {
    let Begun {
        id,
        passage:
            Passage {
                to:
                    Candidate {
                        tunnel,
                        agent,
                        endpoint,
                    },
                opened,
            },
    } = begun;
    let VisitStream { stream, in_flight } = opened;
    let visit = state.visits.enter(id, agent, endpoint, address);
    let (agent, endpoint) = (visit.agent.label(), &visit.endpoint);
    debug!(visit = %id, visitor = %visit.visitor, %agent, %endpoint, "visit begins");
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

async fn run(mut splice: Splice<TcpEnd, TunnelStream>, visit: &Visit) -> Ended {
    tokio::select! {
        ended = &mut splice => ended,
        code = visit.ended() => splice.abort(code),
    }
}

/// The answer to plain HTTP: the same address with TLS, if the host is one that we may serve.
fn redirect(state: &State, head: &[u8]) -> Vec<u8> {
    let is_ours = |host: &str| matches!(route(&state.names, Some(host)), Route::Agent(_));
    plain_http::answer(head, is_ours, state.names.port())
}
