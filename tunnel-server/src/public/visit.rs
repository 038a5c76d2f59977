//! One visit, from accept to its end: the relay's half of the story.
//!
//! 1. Find out who comes: from a trusted proxy, by the header before all else.
//! 2. Read the ClientHello, under one deadline for both.
//! 3. Route by the server name; refuse what is not ours. A certificate authority that validates the relay's
//!    own name gets its answer here (`challenge`).
//! 4. Take the hello to the agent (`delivery`).
//! 5. Splice until it is over (`course`); on another tunnel if the first one dies or falls silent before
//!    the agent has answered.
//!
//! Whatever is logged on the way stands in a span with the visit's id and the visitor's address.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use first_flight::alert::Alert;
use first_flight::client_hello::{self, ClientHello, FirstFlight, ReadError};
use first_flight::plain_http;
use first_flight::proxy_header::{Addresses, HeaderError};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, debug_span};

use super::arrival::addresses;
use super::challenge;
use super::course::Course;
use super::delivery::{self, Delivery, Destination, Who};
use super::refusal::send_and_close;
use super::route::{Route, route};
use crate::agent::h2;
use crate::state::State;

/// Serves one visitor on the connection of `peer`, who is counted from now on. Dropping the future ends the
/// visitor's connection; once bytes flow, by a reset, and that of the stream too.
pub(crate) fn serve(
    connection: TcpStream,
    peer: SocketAddr,
    state: Arc<State>,
) -> impl Future<Output = ()> {
    let here = state.visits.arrives();
    async move { attend(connection, peer, here, &state).await }
}

async fn attend(
    mut connection: TcpStream,
    peer: SocketAddr,
    here: TaskTrackerToken,
    state: &Arc<State>,
) {
    let deadline = Instant::now() + state.timeouts.client_hello;
    let id = state.visits.draw_id();
    let arriving = arrive(&mut connection, peer, deadline, state)
        .instrument(debug_span!("visit", %id, visitor = %peer));
    let arriving = Box::pin(arriving);
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
    converse(visitor, deadline, state).instrument(span).await;
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
    // Apart, as all that follows: who stays pays for the room that staying takes, and for no other.
    let receiving = Box::pin(receive(&mut visitor, deadline, state));
    match state.shutdown.run_until_cancelled(receiving).await {
        Some(Reception::Pass(delivery)) => {
            let Visitor {
                connection,
                who,
                here: _here,
            } = visitor;
            let course = Course::begin(who, delivery.label, delivery.hello, state);
            Box::pin(course.run(connection, delivery.passage)).await;
        }
        Some(Reception::Api(hello)) => {
            debug!("an agent comes through the public port");
            drop(visitor.here);
            let address = visitor.who.addresses.visitor;
            // Apart, as above.
            let agent = h2::serve(hello, visitor.connection, address, state.clone());
            Box::pin(agent).await;
        }
        Some(Reception::Own(hello, config)) => {
            let timeouts = &state.timeouts;
            let answering =
                challenge::answer(hello, visitor.connection, config, deadline, timeouts);
            // Apart, as above.
            let answering = Box::pin(state.shutdown.run_until_cancelled(answering));
            answering.await;
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
    /// He asks for the challenge of the relay's own, which this TLS answers; these bytes have been read.
    Own(Bytes, Arc<ServerConfig>),
    /// He is told something, and goes.
    Refuse(Vec<u8>),
    /// There is nobody to be told anything.
    Close,
}

impl Reception {
    fn alert(alert: Alert) -> Self {
        Self::Refuse(alert.to_bytes().to_vec())
    }
}

/// Reads what the visitor wants, and takes it to the agent.
async fn receive(visitor: &mut Visitor, deadline: Instant, state: &State) -> Reception {
    let reading = timeout_at(deadline, client_hello::read(&mut visitor.connection));
    let refusal = match reading.await {
        Ok(Ok(FirstFlight::Tls(hello))) => return send_on(hello, &visitor.who, state).await,
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

/// Finds out where a hello is to go, and takes it to the agent if it is one's.
async fn send_on(hello: ClientHello, who: &Who, state: &State) -> Reception {
    let to = match route(&state.names, hello.server_name.as_deref(), &hello.alpn) {
        Route::Api => return Reception::Api(hello.bytes),
        Route::Refuse(alert) => {
            debug!(alert = alert.description(), "refused: not a name of ours");
            return Reception::alert(alert);
        }
        Route::OwnChallenge(host) => {
            let Some(config) = state.challenges.get(&host) else {
                debug!("refused: no challenge of the relay's own is pending");
                return Reception::alert(Alert::NO_APPLICATION_PROTOCOL);
            };
            return Reception::Own(hello.bytes, config);
        }
        Route::Agent(agent) => Destination::Agent(agent),
        Route::Challenge { agent, host } => Destination::Challenge { agent, host },
    };
    match delivery::begin(state, &to, hello, who).await {
        Ok(delivery) => Reception::Pass(Box::new(delivery)),
        Err(alert) => Reception::alert(alert),
    }
}

/// The answer to plain HTTP: the same address with TLS, if the host is one that we may serve.
fn redirect(state: &State, head: &[u8]) -> Vec<u8> {
    let is_ours = |host: &str| matches!(route(&state.names, Some(host), &[]), Route::Agent(_));
    plain_http::answer(head, is_ours, state.names.port())
}
