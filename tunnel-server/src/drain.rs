//! How the relay ends: slowly, so that nobody who waits for an answer notices.
//!
//! ```text
//!   serving ──▶ draining ── drain_delay ──▶ closed ── no visit left, or drain_grace ──▶ shutdown
//!               │ not ready any more        │ public ports closed                       │ all is cut
//!               │ agents look elsewhere     │ visits end between two requests
//!               └ no new agents             └ busy ones go on
//! ```
//!
//! The relay passes TLS through and can not say `Connection: close`. What can be done: end a connection
//! whose last byte went to the visitor, and leave one alone whose last byte came from him. So every
//! request that was begun before the grace is over gets its answer. The agent, whose TLS it is, sees more
//! than we do, and goes first.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Frame, Refused};

/// How many agents a relay can take in each second: the others take in ours, or we do after a restart.
const AGENTS_PER_SECOND: usize = 100;
/// Agents end visits whose TLS is theirs before we do: by `close_notify`, which we can not send.
const AGENTS_FIRST: Duration = Duration::from_secs(1);
/// When an agent may come again that met us at the end: another relay may answer by then.
const RETRY_MS: u64 = 1_000;

/// How far the end has come. Cheap to ask; each step is taken once, and none is taken back.
#[derive(Debug)]
pub(crate) struct Drain {
    draining: CancellationToken,
    closed: CancellationToken,
}

/// The last of our steps that an agent was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Told {
    #[default]
    Nothing,
    Draining,
    Leaving,
}

impl Drain {
    /// Nothing has been done yet. A `shutdown` takes all steps at once.
    pub(crate) fn new(shutdown: &CancellationToken) -> Self {
        Self {
            draining: shutdown.child_token(),
            closed: shutdown.child_token(),
        }
    }

    /// Whether the relay takes no new agents, and balancers should send their visitors elsewhere.
    pub(crate) fn has_begun(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Takes the first step.
    pub(crate) fn begin(&self) {
        self.draining.cancel();
    }

    /// Takes the second.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Fires when the ports should be closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ready when visits should end as soon as nobody waits for anything. Cancel safe.
    pub(crate) async fn ends_visits(&self) {
        self.closed.cancelled().await;
        sleep(AGENTS_FIRST).await;
    }

    /// Ready when an agent should be told more than it was, with what it should be told. Cancel safe.
    pub(crate) async fn news(&self, told: Told) -> Told {
        match told {
            Told::Nothing => {
                self.draining.cancelled().await;
                Told::Draining
            }
            Told::Draining => {
                self.closed.cancelled().await;
                Told::Leaving
            }
            Told::Leaving => std::future::pending().await,
        }
    }
}

impl Told {
    /// How it is told to one of so many agents; nothing is not told.
    pub(crate) fn frame(self, agents: usize) -> Option<Frame> {
        match self {
            Self::Nothing => None,
            Self::Draining => {
                let spread = u64::try_from(spread(agents).as_millis()).unwrap_or(u64::MAX);
                Some(Frame::Draining { spread })
            }
            Self::Leaving => Some(Frame::Leaving),
        }
    }
}

/// The time over which so many agents should spread their reconnecting, so that no relay has more than
/// 100 handshakes a second of them. One agent need not wait for anybody.
fn spread(agents: usize) -> Duration {
    let each = Duration::from_secs(1) / u32::try_from(AGENTS_PER_SECOND).unwrap_or(u32::MAX);
    match agents {
        0 | 1 => Duration::ZERO,
        _ => each.saturating_mul(u32::try_from(agents).unwrap_or(u32::MAX)),
    }
}

/// What an agent is told that says Hello to a relay which is about to end.
pub(crate) fn refusal() -> Refused {
    Refused {
        code: Code::Draining.number(),
        text: "the relay is about to stop".to_owned(),
        retry_after: Some(RETRY_MS),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_thousand_agents_come_back_over_ten_seconds_and_one_at_once() {
        let seconds = |agents| spread(agents).as_secs_f64();
        assert_eq!([0, 1].map(seconds), [0.0, 0.0]);
        assert_eq!([100, 1_000].map(seconds), [1.0, 10.0]);
        assert!(spread(usize::MAX) > Duration::from_secs(1_000_000));
    }

    #[test]
    fn a_relay_that_ends_without_a_drain_closes_its_ports_too() {
        let shutdown = CancellationToken::new();
        let drain = Drain::new(&shutdown);
        assert!(!drain.has_begun());
        shutdown.cancel();
        assert!(drain.has_begun() && drain.closed().is_cancelled());
    }

    #[tokio::test]
    async fn an_agent_is_told_each_step_once() {
        let drain = Drain::new(&CancellationToken::new());
        let is_news = |told| timeout(Duration::ZERO, drain.news(told));
        assert!(is_news(Told::Nothing).await.is_err());
        drain.begin();
        assert_eq!(is_news(Told::Nothing).await, Ok(Told::Draining));
        assert!(is_news(Told::Draining).await.is_err());
        drain.close();
        assert_eq!(is_news(Told::Draining).await, Ok(Told::Leaving));
        assert!(is_news(Told::Leaving).await.is_err());
        let frame = Told::Draining.frame(1_000);
        assert_eq!(frame, Some(Frame::Draining { spread: 10_000 }));
        assert_eq!(Told::Leaving.frame(1_000), Some(Frame::Leaving));
    }
}
