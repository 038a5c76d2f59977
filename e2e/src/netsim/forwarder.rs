//! The thread that carries the packets of one direction.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::conditions::Conditions;
use super::direction::Direction;
use super::lane::{Lane, Verdict};
use super::nat::Nat;
use super::packet::is_multicast;
use super::tun::Tun;

/// How many packets are read before those that are due are written: a full device must not hold them
/// up for longer than some 0.1 ms.
const BATCH: usize = 64;
/// The lowest of the real-time priorities: a busy machine must not look like a slow line.
const PRIORITY: &str = "1";

/// A direction's thread. Dropping it ends the thread; a panic there is one here.
#[derive(Debug)]
pub(super) struct Forwarder {
    direction: Arc<Direction>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Which end of the NAT a direction meets.
#[derive(Debug)]
pub(super) enum Meets {
    /// It leaves the near end: behind the NAT its packets come from elsewhere.
    Leaving(Arc<Nat>),
    /// It comes to the near end.
    Coming(Arc<Nat>),
}

/// What the thread works with.
pub(super) struct Carrier {
    pub(super) from: Arc<Tun>,
    pub(super) to: Arc<Tun>,
    pub(super) direction: Arc<Direction>,
    pub(super) meets: Meets,
    pub(super) lane: Lane,
    /// Buffers that are in no queue.
    pub(super) spare: Vec<Vec<u8>>,
}

impl Forwarder {
    pub(super) fn start(name: &str, mut carrier: Carrier) -> Self {
        let direction = carrier.direction.clone();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        let thread = std::thread::Builder::new()
            .name(format!("netsim {name}"))
            .spawn(move || {
                prefer_this_thread();
                while !stop.load(Ordering::Acquire) {
                    carrier.turn();
                }
            });
        Self {
            direction,
            stopped,
            thread: Some(thread.expect("a thread")),
        }
    }
}

impl Carrier {
    /// Takes what is there, gives what is due, and waits if there was little.
    fn turn(&mut self) {
        let conditions = self.direction.in_force();
        let more = self.take(&conditions);
        self.give(&conditions);
        if !more {
            self.wait(&conditions);
        }
    }

    /// Reads a batch; whether more may be there.
    fn take(&mut self, conditions: &Conditions) -> bool {
        let now = Instant::now();
        for _ in 0..BATCH {
            let mut buffer = self.spare.pop().unwrap_or_default();
            if !self.from.read(&mut buffer) {
                self.spare.push(buffer);
                return false;
            }
            if is_multicast(&buffer) {
                // The kernel's own: dice and counts are for what a story sends.
                self.spare.push(buffer);
                continue;
            }
            self.consider(buffer, conditions, now);
        }
        true
    }

    fn consider(&mut self, mut packet: Vec<u8>, conditions: &Conditions, now: Instant) {
        let verdict = self.lane.admit(conditions, &packet);
        let counters = &self.direction.counters;
        match verdict {
            Verdict::Admitted if self.direction.loses(packet.len()) => count(&counters.lost),
            Verdict::Admitted => {
                if let Meets::Leaving(nat) = &self.meets {
                    nat.outward(&mut packet);
                }
                return self.lane.push(packet, now);
            }
            Verdict::Lost => count(&counters.lost),
            Verdict::Overflowed => count(&counters.overflowed),
            Verdict::Swallowed => count(&counters.swallowed),
        }
        self.spare.push(packet);
    }

    fn give(&mut self, conditions: &Conditions) {
        let now = Instant::now();
        while let Some(mut packet) = self.lane.due(conditions, now) {
            let is_known = match &self.meets {
                Meets::Leaving(_) => true,
                Meets::Coming(nat) => nat.inward(&mut packet),
            };
            let counters = &self.direction.counters;
            if is_known && !conditions.cut && self.to.write(&packet) {
                count(&counters.carried);
            } else {
                count(&counters.swallowed);
            }
            self.spare.push(packet);
        }
    }

    /// Until a packet comes, one is due, or the conditions change.
    fn wait(&self, conditions: &Conditions) {
        let left = self
            .lane
            .next(conditions)
            .map(|next| timespec(next.saturating_duration_since(Instant::now())));
        let waker = self.direction.waker();
        let mut sources = [
            PollFd::new(&*self.from, PollFlags::IN),
            PollFd::new(waker, PollFlags::IN),
        ];
        // What interrupts it is nothing to us: the next turn looks at everything anyway.
        let _ = poll(&mut sources, left.as_ref());
        if sources[1].revents().contains(PollFlags::IN) {
            // It fails if somebody else has drained it: nobody has.
            let _ = rustix::io::read(waker, &mut [0_u8; 8]);
        }
    }
}

/// Lets this thread run before ordinary ones. Where that is forbidden, delays are less exact.
fn prefer_this_thread() {
    let thread = rustix::thread::gettid().as_raw_pid().to_string();
    let arguments = ["--rr", "--pid", PRIORITY, &thread];
    let _ = Command::new("chrt").args(arguments).output();
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.direction.wake();
        let ended = self.thread.take().map(JoinHandle::join);
        // A second panic would hide the first.
        if matches!(ended, Some(Err(_))) && !std::thread::panicking() {
            panic!("a forwarder panicked");
        }
    }
}
