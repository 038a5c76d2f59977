//! A visit from the moment its hello is with an agent, to its end.
//!
//! ```text
//!   waiting for the first answer ── bytes move ──▶ joined to one tunnel ──▶ over
//!     ▲    │ the tunnel dies, or is suspect while another is not
//!     └────┘ the hello goes there
//! ```
//!
//! Nothing is done twice: a visit moves only while nothing but the hello has gone to the agent, and nothing
//! has come back. The hello is held until then, and no longer. That of a certificate authority is not held at
//! all: only the agent that waits for it can answer.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use first_flight::alert::Alert;
use first_flight::client_hello::ClientHello;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;
use tunnel_common::identity::Label;
use tunnel_common::splice::ended::{Cause, Ended, Limit, Side};
use tunnel_common::splice::options::{Options, Sight};
use tunnel_common::splice::pump::Splice;
use tunnel_common::splice::tcp::TcpEnd;
use tunnel_common::stream::tunnel::TunnelStream;
use tunnel_common::wire::code::Code;

use super::delivery::{Destination, Who, deliver};
use super::patience::{self, Patience, Waited};
use crate::agent::open::Passage;
use crate::agent::registry::Candidate;
use crate::agent::right::Right;
use crate::agent::tunnel::VisitStream;
use crate::state::State;
use crate::visits::Visit;

/// How often a visit moves before it stays where it is.
const MAX_MOVES: usize = 2;

/// A visit whose hello is with an agent.
pub(super) struct Course<'a> {
    state: &'a State,
    who: Who,
    label: Label,
    /// What another tunnel would need, if the visit may still move.
    hello: Option<ClientHello>,
    /// By when the agent must have answered, however often the visit moves.
    answer_by: Option<Instant>,
}

/// How a visit's time on one tunnel has ended.
enum Joined {
    /// It is over, or its tunnel is.
    Over(Ended),
    /// Another tunnel has the hello now.
    Moved(Passage),
}

impl<'a> Course<'a> {
    /// A visit of the agent `label` has begun. Without a hello it stays on the tunnel where it is.
    pub(super) fn begin(
        who: Who,
        label: Label,
        hello: Option<ClientHello>,
        state: &'a State,
    ) -> Self {
        let limit = state.timeouts.splice.first_answer;
        Self {
            state,
            who,
            label,
            hello: hello.filter(ClientHello::is_alone),
            answer_by: limit.map(|limit| Instant::now() + limit),
        }
    }

    /// Stays until it is over, by whichever tunnel answers first; `passage` has the hello.
    pub(super) async fn run(mut self, connection: TcpStream, passage: Passage) {
        let mut next = Some((TcpEnd::new(connection), passage));
        let mut moves = 0;
        while let Some((visitor, passage)) = next {
            if moves == MAX_MOVES {
                self.hello = None;
            }
            next = self.join(visitor, passage).await;
            if next.is_some() {
                debug!("the visit moves to another tunnel");
                moves += 1;
            }
        }
    }

    /// Joins the visitor and one tunnel. Gives both again, with the next tunnel, if the visit moves.
    async fn join(&mut self, visitor: TcpEnd, passage: Passage) -> Option<(TcpEnd, Passage)> {
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
        let visits = &self.state.visits;
        let visit = visits.enter(self.who.id, right.agent(), endpoint);
        debug!(agent = %visit.agent.label(), endpoint = %visit.endpoint, "visit begins");
        let options = Options {
            pool: self.state.pool.clone(),
            budget: tunnel.budget().clone(),
            timeouts: self.state.splice_timeouts.clone(),
            first_answer: self.first_answer(),
            meter: visit.meter.clone(),
        };
        let mut splice = Splice::new(visitor, stream, options).keeping_first();
        let patience = Patience::new(self.state, self.label, tunnel.clone());
        let ended = match self.move_bytes(&mut splice, &visit, &right, patience).await {
            Joined::Moved(passage) => {
                let visitor = splice.take_apart(Code::Replaced)?;
                return Some((visitor, passage));
            }
            Joined::Over(ended) => ended,
        };
        if self.hello.is_some()
            && is_tunnel_lost(&ended.cause)
            && let Some(visitor) = splice.take_apart(Code::Replaced)
        {
            // Where nobody else is either, dropping his end resets him.
            return Some((visitor, self.deliver().await?.ok()?));
        }
        if matches!(ended.cause, Cause::Limit(Limit::NoAnswer)) {
            self.state.registry.doubt(self.label, &tunnel);
        }
        let (to_agent, to_visitor) = (ended.a_to_b, ended.b_to_a);
        debug!(to_agent, to_visitor, cause = ?ended.cause, "visit over");
        drop(in_flight);
        None
    }

    /// What is left of the agent's time for its first answer.
    fn first_answer(&self) -> Option<Duration> {
        let left = |by: Instant| by.saturating_duration_since(Instant::now());
        self.answer_by.map(left)
    }

    /// Moves bytes until the visit is over, or another tunnel has its hello. When the agent has answered
    /// the hello is dropped.
    async fn move_bytes(
        &mut self,
        splice: &mut Splice<TcpEnd, TunnelStream>,
        visit: &Visit,
        right: &Right,
        patience: Patience<'_>,
    ) -> Joined {
        let mut patience = self.hello.is_some().then_some(patience);
        let mut closing = pin!(self.state.drain.ends_visits());
        let mut is_closing = false;
        loop {
            tokio::select! {
                ended = &mut *splice => return Joined::Over(ended),
                code = visit.ended() => return Joined::Over(splice.abort(code)),
                () = right.revoked() => return Joined::Over(splice.abort(Code::Policy)),
                () = &mut closing, if !is_closing => {
                    splice.close_when_idle(Sight::Opaque);
                    is_closing = true;
                }
                waited = patience::wait(&mut patience, &visit.meter) => match waited {
                    Waited::Better if splice.is_untouched() => {
                        // Before it leaves the tunnel where it is: that may answer yet.
                        if let Some(Ok(passage)) = self.deliver().await {
                            return Joined::Moved(passage);
                        }
                    }
                    Waited::Better | Waited::Answered => (patience, self.hello) = (None, None),
                },
            }
        }
    }

    /// Takes the hello to the best tunnel that there is now. Nothing if it is held no more, or the relay
    /// ends.
    async fn deliver(&self) -> Option<Result<Passage, Alert>> {
        let hello = self.hello.as_ref()?;
        let to = Destination::Agent(self.label);
        // Apart: few visits move, and none of the others pays for the room.
        let delivering = Box::pin(deliver(self.state, &to, hello, &self.who));
        self.state.shutdown.run_until_cancelled(delivering).await
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
