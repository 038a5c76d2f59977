//! How long a visit waits for its agent's first answer before it looks for a better tunnel.
//!
//! An answer that is late makes the relay ask the agent whether it is there; one that does not say so
//! makes its tunnel suspect (`agent/control.rs`), and the visit moves as soon as another tunnel is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tunnel_common::identity::Label;
use tunnel_common::splice::options::Meter;

use crate::agent::registry::Registry;
use crate::agent::tunnel::Tunnel;
use crate::state::State;

/// The least time between two looks; it doubles.
const MIN_ASK_AGAIN: Duration = Duration::from_millis(300);

/// What a visit waits with for its first answer.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    registry: &'a Registry,
    agent: Label,
    tunnel: Arc<Tunnel>,
    news: watch::Receiver<()>,
    /// When to look next whether bytes have moved, and to ask the agent whether it is there if not …
    ask_at: Instant,
    /// … and how long after that again.
    ask_again: Duration,
}

/// How the waiting has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Bytes have moved.
    Answered,
    /// Another tunnel of the agent would be better.
    Better,
}

impl<'a> Patience<'a> {
    /// A visit has just come to `tunnel` of `agent`.
    pub(super) fn new(state: &'a State, agent: Label, tunnel: Arc<Tunnel>) -> Self {
        Self {
            registry: &state.registry,
            agent,
            news: tunnel.news(),
            tunnel,
            ask_at: Instant::now() + state.timeouts.first_question,
            ask_again: state.timeouts.first_question.max(MIN_ASK_AGAIN),
        }
    }

    /// Waits for the next reason to look, and looks.
    async fn look(&mut self, meter: &Meter) -> Option<Waited> {
        tokio::select! {
            () = sleep_until(self.ask_at) => {
                self.ask_at = Instant::now() + self.ask_again;
                self.ask_again *= 2;
                if meter.a_to_b() > 0 || meter.b_to_a() > 0 {
                    return Some(Waited::Answered);
                }
                self.tunnel.question();
            }
            Ok(()) = self.news.changed() => {}
        }
        let is_better = self.registry.has_better(self.agent, &self.tunnel);
        is_better.then_some(Waited::Better)
    }
}

/// Ready when there is nothing to wait for any more, or something better to wait at; never without
/// `patience`. Cancel safe.
pub(super) async fn wait(patience: &mut Option<Patience<'_>>, meter: &Meter) -> Waited {
    loop {
        match patience {
            None => std::future::pending().await,
            Some(patience) => {
                if let Some(waited) = patience.look(meter).await {
                    return waited;
                }
            }
        }
    }
}
