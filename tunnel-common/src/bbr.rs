//! BBR's model as quinn can carry it out: quinn paces by the window alone, so the window is what the model says.
//!
//! The model is BBR's (draft-cardwell-iccrg-bbr-congestion-control): the most that was delivered in a round
//! trip, and the shortest round trip. Both together are what the path holds without a queue.
//!
//! ```text
//!   Startup ── no more comes, a queue, a flood ──▶ Cruise ── 10 s without a round trip as short ──▶ Probe
//!      ▲                                            │  ▲                                              │
//!      └────────── far more comes than before ──────┘  └───────────── two round trips later ──────────┘
//! ```
//!
//! * Startup: the window grows by what is acknowledged, and doubles with each round trip.
//! * Cruise: a little more than the path holds, and in one round of eight a quarter more. So questions wait
//!   behind 20 ms at most, and where there is more room each round finds more, until it is Startup again.
//! * Probe: less than the path holds, so that the queue drains and the round trip shows.
//!
//! A loss alone says nothing, and neither does a mark (RFC 3168), of which quinn does not say how many there
//! were: only when many packets of a round trip are lost, what was delivered of it is believed, and nothing
//! older. All sizes are in bytes, and rates in bytes by the second.

mod aggregation;
mod round;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

use self::aggregation::Aggregation;
use self::round::{Round, Seen};

/// What a connection begins with, before anything is known of its path: what quinn's own BBR takes.
const INITIAL_WINDOW: u64 = 240_000;
/// Packets that may always be under way, so that acknowledgements come (the draft's MinPipeCwnd).
const LEAST_PACKETS: u64 = 4;
/// Packets that a window holds beyond the model. They make equals of connections that share a path: to each the
/// same, whatever it has.
const EXTRA_PACKETS: u64 = 8;
/// How many rounds the most that was delivered counts (Linux's BBR remembers as many).
const REMEMBERED_ROUNDS: usize = 10;
/// Startup's window is at most so many times what the path seems to hold: it doubles with each round.
const STARTUP_GAIN: f64 = 2.0;
/// What more than the path holds is tried for a round in each cycle (the draft's ProbeBW_UP).
const TRY_GAIN: f64 = 1.25;
const CYCLE_ROUNDS: u8 = 8;
/// And what stays in the queue in the other rounds, if that is less.
const STANDING_QUEUE: Duration = Duration::from_millis(20);
const PROBE_GAIN: f64 = 0.75;
/// Startup ends when for so many rounds not this much more was delivered (the draft's full pipe).
const STARTUP_GROWTH: f64 = 1.25;
const ROUNDS_WITHOUT_GROWTH: u8 = 3;
/// Or when so many acknowledgements in a row took longer than the shortest by an eighth, within these limits: a
/// queue (RFC 9406, 4.2).
const QUEUED_ACKS: u8 = 8;
const QUEUE_AT_LEAST: Duration = Duration::from_millis(4);
const QUEUE_AT_MOST: Duration = Duration::from_millis(16);
/// It begins anew when in so many rounds in a row this much more was delivered than ever before.
const RISE: f64 = 1.15;
const RISES: u8 = 2;
/// How long the shortest round trip is believed (the draft's MinRTTFilterLen).
const MIN_RTT_LIFE: Duration = Duration::from_secs(10);

/// Makes the congestion control of each path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BbrConfig;

impl ControllerFactory for BbrConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bbr::new(now, current_mtu))
    }
}

/// What is known of one path in one direction.
#[derive(Clone, Debug)]
struct Bbr {
    phase: Phase,
    packet: u64,
    window: u64,
    round: Round,
    /// What the last rounds delivered, by the second.
    delivered: VecDeque<f64>,
    min_rtt: Option<Duration>,
    /// When a round trip was last as short.
    min_rtt_at: Instant,
    aggregation: Aggregation,
    /// Acknowledgements in a row that show a queue.
    queued_acks: u8,
    /// Nothing was under way after the last acknowledgement.
    is_quiet: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Startup {
        /// The most that a round has delivered.
        best: f64,
        rounds_without_growth: u8,
    },
    Cruise {
        /// Of the cycle.
        round: u8,
        /// Rounds in a row that delivered far more than any before.
        rises: u8,
    },
    Probe {
        /// A round of it is over, and with it the queue.
        is_drained: bool,
    },
}

impl Phase {
    const START: Self = Self::Startup {
        best: 0.0,
        rounds_without_growth: 0,
    };
    const CRUISE: Self = Self::Cruise { round: 1, rises: 0 };
}

impl Bbr {
    fn new(now: Instant, packet: u16) -> Self {
        Self {
            phase: Phase::START,
            packet: packet.into(),
            window: INITIAL_WINDOW,
            round: Round::new(now, true),
            delivered: VecDeque::with_capacity(REMEMBERED_ROUNDS),
            min_rtt: None,
            min_rtt_at: now,
            aggregation: Aggregation::new(now),
            queued_acks: 0,
            is_quiet: true,
        }
    }

    fn sent(&mut self, now: Instant) {
        if self.is_quiet {
            self.is_quiet = false;
            self.round = Round::new(now, false);
        }
    }

    /// Packets are acknowledged: this many bytes, sent then.
    fn acked(&mut self, now: Instant, sent: Instant, bytes: u64, is_idle: bool) {
        self.round.acked(now, sent, bytes, is_idle);
    }

    /// These acknowledgements came together; so much is still under way.
    fn all_acked(&mut self, now: Instant, in_flight: u64, is_idle: bool) {
        let Some(rtt) = self.round.rtt() else {
            return;
        };
        self.is_quiet = in_flight == 0;
        let is_shortest = self.min_rtt.is_none_or(|shortest| rtt <= shortest);
        if is_shortest {
            (self.min_rtt, self.min_rtt_at) = (Some(rtt), now);
        }
        let bytes = self.round.take_batch();
        self.aggregation.acked(now, bytes, self.rate());
        self.look_for_a_queue(rtt);
        if let Some(seen) = self.round.end(now, is_idle, self.packet) {
            self.learn(seen, now);
        }
        let is_full = self.round.is_lossy(self.packet) || self.queued_acks >= QUEUED_ACKS;
        if is_full && matches!(self.phase, Phase::Startup { .. }) {
            self.enter(Phase::CRUISE, now);
        }
        self.set_window(bytes, is_idle);
    }

    fn look_for_a_queue(&mut self, rtt: Duration) {
        let shortest = self.min_rtt.unwrap_or(rtt);
        let queue = (shortest / 8).clamp(QUEUE_AT_LEAST, QUEUE_AT_MOST);
        self.queued_acks = match rtt > shortest + queue {
            true => self.queued_acks.saturating_add(1),
            false => 0,
        };
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        if matches!(self.phase, Phase::Startup { .. }) && !matches!(phase, Phase::Startup { .. }) {
            // While the rate doubles everything looks like a lump.
            self.aggregation = Aggregation::new(now);
        }
        self.phase = phase;
    }

    /// A round is over.
    fn learn(&mut self, seen: Seen, now: Instant) {
        let most = self.rate();
        self.aggregation.round_ended();
        if seen.is_lossy {
            self.delivered.clear();
        }
        // What came while there was little to send is a lower bound, and no more.
        if !seen.is_idle || seen.is_lossy || seen.rate > most {
            if self.delivered.len() == REMEMBERED_ROUNDS {
                self.delivered.pop_front();
            }
            self.delivered.push_back(seen.rate);
        }
        let next = self.next_phase(seen, most, now);
        self.enter(next, now);
    }

    fn next_phase(&mut self, seen: Seen, most: f64, now: Instant) -> Phase {
        match self.phase {
            Phase::Probe { is_drained: false } => Phase::Probe { is_drained: true },
            Phase::Probe { is_drained: true } => {
                (self.min_rtt, self.min_rtt_at) = (Some(seen.rtt), now);
                Phase::CRUISE
            }
            phase if seen.is_idle => phase,
            Phase::Startup { .. } if seen.is_lossy => Phase::CRUISE,
            Phase::Startup { best, .. } if seen.rate >= best * STARTUP_GROWTH => Phase::Startup {
                best: seen.rate,
                rounds_without_growth: 0,
            },
            Phase::Startup {
                best,
                rounds_without_growth,
            } => match rounds_without_growth + 1 {
                ROUNDS_WITHOUT_GROWTH => Phase::CRUISE,
                rounds_without_growth => Phase::Startup {
                    best,
                    rounds_without_growth,
                },
            },
            Phase::Cruise { .. } if now - self.min_rtt_at > MIN_RTT_LIFE => {
                Phase::Probe { is_drained: false }
            }
            Phase::Cruise { round, rises } => {
                let rises = match seen.rate >= most * RISE {
                    true => rises + 1,
                    false => 0,
                };
                match rises {
                    RISES => Phase::Startup {
                        best: seen.rate,
                        rounds_without_growth: 0,
                    },
                    rises => Phase::Cruise {
                        round: (round + 1) % CYCLE_ROUNDS,
                        rises,
                    },
                }
            }
        }
    }

    fn set_window(&mut self, acked: u64, is_idle: bool) {
        let extra = self.aggregation.extra().max(EXTRA_PACKETS * self.packet);
        let least = LEAST_PACKETS * self.packet;
        self.window = match self.phase {
            // A window that nobody fills says nothing.
            Phase::Startup { .. } if is_idle => self.window,
            Phase::Startup { .. } => {
                let most = self.path_holds(STARTUP_GAIN).max(INITIAL_WINDOW) + extra;
                (self.window + acked).min(most)
            }
            Phase::Cruise { round: 0, .. } | Phase::Cruise { rises: 1.., .. } => {
                self.path_holds(TRY_GAIN) + extra
            }
            Phase::Cruise { .. } => {
                let queue = (self.rate() * STANDING_QUEUE.as_secs_f64()) as u64;
                let most = self.path_holds(TRY_GAIN);
                most.min(self.path_holds(1.0) + queue) + extra
            }
            Phase::Probe { .. } => self.path_holds(PROBE_GAIN),
        }
        .max(least);
    }

    /// The most that was delivered lately.
    fn rate(&self) -> f64 {
        self.delivered.iter().copied().fold(0.0, f64::max)
    }

    /// So many times what the path holds without a queue.
    fn path_holds(&self, times: f64) -> u64 {
        let min_rtt = self.min_rtt.unwrap_or_default();
        (times * self.rate() * min_rtt.as_secs_f64()) as u64
    }

    fn lost(&mut self, bytes: u64, is_persistent: bool) {
        self.round.lost(bytes);
        if is_persistent {
            self.delivered.clear();
            self.phase = Phase::START;
            self.window = LEAST_PACKETS * self.packet;
        }
    }
}

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, _: u64, _: u64) {
        self.sent(now);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _: &RttEstimator,
    ) {
        self.acked(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.all_acked(now, in_flight, app_limited);
    }

    fn on_congestion_event(&mut self, _: Instant, _: Instant, is_persistent: bool, lost: u64) {
        self.lost(lost, is_persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet = new_mtu.into();
        self.window = self.window.max(LEAST_PACKETS * self.packet);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
