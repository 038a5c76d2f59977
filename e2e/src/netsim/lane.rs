//! What one direction decides about packets, as a pure function of conditions, time and seed.
//!
//! ```text
//! admit ─▶ dropped? ─▶ waiting: one after the other, at the rate ─▶ flying: for the delay ─▶ due
//! ```
//!
//! Both queues keep the order: when a delay shrinks, packets wait for those ahead of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::conditions::{Block, Conditions, Loss};
use super::packet::{Protocol, flow};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// What became of a packet at the near end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admitted,
    Lost,
    Overflowed,
    Swallowed,
}

/// One direction's queues and dice.
#[derive(Debug)]
pub(super) struct Lane {
    rng: Rng,
    in_burst: bool,
    waiting: VecDeque<Packet>,
    waiting_bytes: usize,
    line_free: Instant,
    flying: VecDeque<Packet>,
}

/// A packet, and when it came to the queue that it is in (waiting) or leaves it (flying).
#[derive(Debug)]
struct Packet {
    at: Instant,
    bytes: Vec<u8>,
}

impl Lane {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            in_burst: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            line_free: now,
            flying: VecDeque::new(),
        }
    }

    /// What is to become of this packet; an admitted one must be given to [`push`](Self::push).
    pub(super) fn admit(&mut self, conditions: &Conditions, packet: &[u8]) -> Verdict {
        let too_big = conditions
            .largest_packet
            .is_some_and(|largest| packet.len() > largest);
        if conditions.cut || too_big || is_blocked(conditions.block, packet) {
            Verdict::Swallowed
        } else if self.is_lost(conditions.loss) {
            Verdict::Lost
        } else if conditions.bits_per_second.is_some()
            && self.waiting_bytes + packet.len() > conditions.queue_bytes
        {
            Verdict::Overflowed
        } else {
            Verdict::Admitted
        }
    }

    /// Takes a packet that was admitted.
    pub(super) fn push(&mut self, bytes: Vec<u8>, now: Instant) {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Packet { at: now, bytes });
    }

    /// The next packet that has arrived at the other end by now.
    pub(super) fn due(&mut self, conditions: &Conditions, now: Instant) -> Option<Vec<u8>> {
        self.depart(conditions, now);
        if self.flying.front()?.at > now {
            return None;
        }
        self.flying.pop_front().map(|packet| packet.bytes)
    }

    /// When something happens next if nothing comes and nothing changes.
    pub(super) fn next(&self, conditions: &Conditions) -> Option<Instant> {
        let departs = self
            .waiting
            .front()
            .map(|packet| self.departure(conditions, packet));
        let arrives = self.flying.front().map(|packet| packet.at);
        departs.into_iter().chain(arrives).min()
    }

    fn depart(&mut self, conditions: &Conditions, now: Instant) {
        while let Some(packet) = self.waiting.front() {
            let departs = self.departure(conditions, packet);
            if departs > now {
                return;
            }
            let Some(mut packet) = self.waiting.pop_front() else {
                return;
            };
            self.line_free = departs;
            self.waiting_bytes -= packet.bytes.len();
            packet.at = departs + conditions.delay;
            self.flying.push_back(packet);
        }
    }

    fn departure(&self, conditions: &Conditions, packet: &Packet) -> Instant {
        packet.at.max(self.line_free) + sending(packet.bytes.len(), conditions.bits_per_second)
    }

    fn is_lost(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(share) => self.rng.f64() < share,
            Loss::Bursts { share, length } => {
                let ends = 1.0 / length.max(1.0);
                let begins = (ends * share / (1.0 - share)).min(1.0);
                let turns = self.rng.f64() < if self.in_burst { ends } else { begins };
                self.in_burst ^= turns;
                self.in_burst
            }
        }
    }
}

/// How long the line is busy with so many bytes.
fn sending(bytes: usize, bits_per_second: Option<u64>) -> Duration {
    let Some(rate) = bits_per_second else {
        return Duration::ZERO;
    };
    let nanos = bytes as u128 * 8 * NANOS_PER_SECOND / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn is_blocked(block: Block, packet: &[u8]) -> bool {
    if block == Block::Nothing {
        return false;
    }
    let Some(flow) = flow(packet) else {
        return false;
    };
    let of_port = |port| flow.source == port || flow.destination == port;
    flow.protocol == Protocol::Udp
        && match block {
            Block::Nothing => false,
            Block::Udp => true,
            Block::UdpPort(port) => of_port(port),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lane() -> (Lane, Instant) {
        let now = Instant::now();
        (Lane::new(7, now), now)
    }

    fn losses(loss: Loss, packets: usize) -> Vec<bool> {
        let (mut lane, _) = lane();
        (0..packets).map(|_| lane.is_lost(loss)).collect()
    }

    #[test]
    fn a_packet_flies_for_the_delay_and_keeps_its_place_when_the_delay_shrinks() {
        let (mut lane, start) = lane();
        let mut conditions = Conditions {
            delay: 25 * MS,
            ..Conditions::default()
        };
        lane.push(vec![1], start);
        assert_eq!(lane.next(&conditions), Some(start));
        assert_eq!(lane.due(&conditions, start + 24 * MS), None);
        assert_eq!(lane.next(&conditions), Some(start + 25 * MS));
        conditions.delay = Duration::ZERO;
        lane.push(vec![2], start + 24 * MS);
        assert_eq!(lane.due(&conditions, start + 24 * MS), None);
        assert_eq!(lane.due(&conditions, start + 25 * MS), Some(vec![1]));
        assert_eq!(lane.due(&conditions, start + 25 * MS), Some(vec![2]));
        assert_eq!(lane.next(&conditions), None);
    }

    #[test]
    fn packets_wait_for_each_other_at_the_rate_and_the_queue_is_bounded() {
        let (mut lane, start) = lane();
        let conditions = Conditions {
            bits_per_second: Some(8_000_000),
            queue_bytes: 2_500,
            ..Conditions::default()
        };
        for expected in [Verdict::Admitted, Verdict::Admitted, Verdict::Overflowed] {
            assert_eq!(lane.admit(&conditions, &[0; 1_000]), expected);
            if expected == Verdict::Admitted {
                lane.push(vec![0; 1_000], start);
            }
        }
        assert_eq!(lane.due(&conditions, start), None);
        assert_eq!(lane.next(&conditions), Some(start + MS));
        assert!(lane.due(&conditions, start + MS).is_some());
        assert_eq!(lane.admit(&conditions, &[0; 1_000]), Verdict::Admitted);
        assert_eq!(lane.due(&conditions, start + MS), None);
        assert!(lane.due(&conditions, start + 5 * MS).is_some());
    }

    #[test]
    fn a_rate_that_is_lifted_frees_what_waits() {
        let (mut lane, start) = lane();
        let mut conditions = Conditions {
            bits_per_second: Some(8),
            ..Conditions::default()
        };
        lane.push(vec![0; 1_000], start);
        assert_eq!(lane.due(&conditions, start + MS), None);
        conditions.bits_per_second = None;
        assert!(lane.due(&conditions, start + MS).is_some());
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let loss = Loss::Random(0.5);
        assert_eq!(losses(loss, 100), losses(loss, 100));
    }

    #[test]
    fn bursts_lose_the_share_that_was_asked_in_runs_of_the_length_that_was_asked() {
        let loss = Loss::Bursts {
            share: 0.1,
            length: 4.0,
        };
        let lost = losses(loss, 100_000);
        let total = lost.iter().filter(|lost| **lost).count();
        let runs = lost.windows(2).filter(|two| !two[0] && two[1]).count();
        assert!((9_000..11_000).contains(&total), "{total}");
        let length = total as f64 / runs as f64;
        assert!((3.5..4.5).contains(&length), "{length}");
    }
}
