//! One visit, from accept to its end: the relay's half of the story.
//!
//! 1. Find out who comes: from a trusted proxy, by the header before all else.
//! 2. Read the ClientHello, under one deadline for both.
//! 3. Route by the server name; refuse what is not ours.
//! 4. Take the hello to the agent (`delivery`).
//! 5. Splice until it is over. If the tunnel dies or falls silent before the agent has answered, and
//!    nothing but the hello has gone to it, once more from 4, on another tunnel (`patience`).
//!
//! Whatever is logged on the way stands in a span with the visit's id and the visitor's address.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use first_flight::client_hello::{self, ClientHello, FirstFlight, ReadError};
use first_flight::plain_http;
use first_flight::proxy_header::{Addresses, HeaderError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, debug_span};
use tunnel_common::splice::ended::{Cause, Ended, Limit, Side};
use tunnel_common::splice::options::{Options, Sight};
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::code::Code;

use super::arrival::addresses;
use super::delivery::{Delivery, Who, deliver};
use super::patience::{self, Patience, Waited};
use super::refusal::send_and_close;
use super::route::{Route, route};
use crate::agent::h2;
use crate::agent::open::Passage;
use crate::agent::registry::Candidate;
use crate::agent::right::Right;
use crate::agent::tunnel::VisitStream;
use crate::drain::Drain;
use crate::state::State;
use crate::visits::Visit;

/// Tunnels by which a visit may wait for its first answer, one after the other.
const MAX_MOVES: usize = 3;

/// Serves one visitor on the connection of `peer`. Dropping the future ends the visitor's
/// connection; once bytes flow, by a reset, and that of the stream too.
pub(crate) async fn serve(mut connection: TcpStream, peer: SocketAddr, state: Arc<State>) {
    let deadline = Instant::now() + state.timeouts.client_hello;
    let (id, here) = (state.visits.draw_id(), state.visits.arrives());
    let arriving = arrive(&mut connection, peer, deadline, &state)
        .instrument(debug_span!("visit", %id, visitor = %peer));
    let Some(Some(addresses)) = state.shutdown.run_until_cancelled(arriving).await else {
        return;
    };
    let span = debug_span!("visit", %id, visitor = %addresses.visitor);
    let who = Who { addresses, id };
    let visitor = Visitor {
        connection,
        who,
        here,
    };
    converse(visitor, deadline, &state).instrument(span).await;
}

/// A visitor whose address is known.
struct Visitor {
    connection: TcpStream,
    who: Who,
    /// Counts him as a visitor until it is dropped.
    here: TaskTrackerToken,
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
        Some(Reception::Pass(delivery)) => pass(visitor, *delivery, state).await,
        Some(Reception::Api(hello)) => {
            debug!("an agent comes through the public port");
            drop(visitor.here);
            let address = visitor.who.addresses.visitor;
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
    Pass(Box<Delivery>),
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
                Route::Agent(label) => match deliver(state, label, &hello, &visitor.who).await {
                    Ok(passage) => {
                        let delivery = Delivery {
                            label,
                            hello,
                            passage,
                        };
                        return Reception::Pass(Box::new(delivery));
                    }
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

/// Stays until the visit is over, by whichever tunnel the agent answers first.
async fn pass(visitor: Visitor, delivery: Delivery, state: &State) {
    let Visitor {
        connection,
        who,
        here: _here,
    } = visitor;
    let Delivery {
        label,
        hello,
        mut passage,
    } = delivery;
    let mut end = TcpEnd::new(connection);
    // Held as long as another tunnel may need it.
    let mut hello = hello.is_alone().then_some(hello);
    for moves_left in (0..MAX_MOVES).rev() {
        if moves_left == 0 {
            hello = None;
        }
        end = match join(end, passage, &mut hello, &who, state).await {
            Some(end) => end,
            None => return,
        };
        let Some(held) = &hello else { return };
        let moving = deliver(state, label, held, &who);
        passage = match state.shutdown.run_until_cancelled(moving).await {
            Some(Ok(moved)) => moved,
            // Nobody else is there either: dropping his end resets him.
            Some(Err(_)) | None => return,
        };
        debug!("the visit has moved to another tunnel");
    }
}

/// Joins the visitor and the agent, until the visit is over. Gives the visitor's end back if the visit
/// should move, which it does only while there is a hello. When the agent has answered that is dropped.
async fn join(
    end: TcpEnd,
    passage: Passage,
    hello: &mut Option<ClientHello>,
    who: &Who,
    state: &State,
) -> Option<TcpEnd> {
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
    let visit = state.visits.enter(who.id, right.agent(), endpoint);
    let (agent, endpoint) = (visit.agent.label(), &visit.endpoint);
    debug!(%agent, %endpoint, "visit begins");
    let options = Options {
        pool: state.pool.clone(),
        budget: tunnel.budget().clone(),
        timeouts: state.timeouts.splice,
        meter: visit.meter.clone(),
    };
    let mut splice = Splice::new(end, stream, options).keeping_first();
    let patience = Patience::new(state, agent, tunnel.clone());
    let ended = run(&mut splice, &visit, &right, patience, hello, &state.drain).await;
    let is_lost = match &ended {
        None => true,
        Some(ended) => hello.is_some() && is_tunnel_lost(&ended.cause),
    };
    if is_lost && let Some(end) = splice.take_apart(Code::Replaced) {
        return Some(end);
    }
    let ended = ended?;
    if matches!(ended.cause, Cause::Limit(Limit::NoAnswer)) {
        state.registry.doubt(agent, &tunnel);
    }
    let (to_agent, to_visitor) = (ended.a_to_b, ended.b_to_a);
    debug!(to_agent, to_visitor, cause = ?ended.cause, "visit over");
    drop(in_flight);
    None
}

/// Moves bytes until the visit is over, or until it should move to another tunnel: then there is no end.
async fn run(
    splice: &mut Splice<TcpEnd, TunnelStream>,
    visit: &Visit,
    right: &Right,
    patience: Patience<'_>,
    hello: &mut Option<ClientHello>,
    drain: &Drain,
) -> Option<Ended> {
    let mut patience = hello.is_some().then_some(patience);
    let mut closing = pin!(drain.ends_visits());
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = &mut *splice => return Some(ended),
            code = visit.ended() => return Some(splice.abort(code)),
            () = right.revoked() => return Some(splice.abort(Code::Policy)),
            () = &mut closing, if !is_closing => {
                splice.close_when_idle(Sight::Opaque);
                is_closing = true;
            }
            waited = patience::wait(&mut patience, &visit.meter) => {
                match waited {
                    Waited::Better if splice.is_untouched() => return None,
                    Waited::Better | Waited::Answered => (patience, *hello) = (None, None),
                }
            }
        }
    }
}

/// Whether the tunnel itself is gone, and not only this stream of it.
fn is_tunnel_lost(cause: &Cause) -> bool {
    match cause {
        Cause::Broke {
            side: Side::B,
            error,
        } => error.kind() == ErrorKind::NotConnected,
        _ => false,
    }
}

/// The answer to plain HTTP: the same address with TLS, if the host is one that we may serve.
fn redirect(state: &State, head: &[u8]) -> Vec<u8> {
    let is_ours = |host: &str| matches!(route(&state.names, Some(host), &[]), Route::Agent(_));
    plain_http::answer(head, is_ours, state.names.port())
}
