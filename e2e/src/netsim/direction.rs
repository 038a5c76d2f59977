//! One direction of a line as stories hold it: its conditions, and what became of the packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use super::conditions::Conditions;

/// No packet is larger.
const NO_PACKET: usize = usize::MAX;

/// One direction of a line.
#[derive(Debug)]
pub struct Direction {
    conditions: ArcSwap<Conditions>,
    /// The next packet of more bytes is lost.
    spared: AtomicUsize,
    wake: OwnedFd,
    pub(super) counters: Counters,
}

/// What became of the packets of one direction so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Arrived at the other end.
    pub carried: u64,
    /// Lost by chance, or by [`Direction::lose_one`].
    pub lost: u64,
    /// Found the queue full.
    pub overflowed: u64,
    /// Blocked, too big, cut off, or unknown to the NAT.
    pub swallowed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) carried: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) overflowed: AtomicU64,
    pub(super) swallowed: AtomicU64,
}

impl Direction {
    pub(super) fn new() -> Arc<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Arc::new(Self {
            conditions: ArcSwap::default(),
            spared: AtomicUsize::new(NO_PACKET),
            wake: wake.expect("a descriptor"),
            counters: Counters::default(),
        })
    }

    /// Changes some conditions; those not touched stay. Valid for every packet that comes later, and
    /// rate and cut for those on their way too.
    pub fn change(&self, change: impl FnOnce(&mut Conditions)) {
        let mut conditions = self.conditions();
        change(&mut conditions);
        self.conditions.store(Arc::new(conditions));
        self.wake();
    }

    /// Loses the next packet of more than `bytes`, IP header counted, that would pass otherwise, and no
    /// other. A second call before that packet comes takes the place of the first.
    pub fn lose_one(&self, bytes: usize) {
        self.spared.store(bytes, Ordering::Relaxed);
    }

    /// The conditions in force.
    pub fn conditions(&self) -> Conditions {
        (**self.conditions.load()).clone()
    }

    /// What became of the packets so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            carried: read(&self.counters.carried),
            lost: read(&self.counters.lost),
            overflowed: read(&self.counters.overflowed),
            swallowed: read(&self.counters.swallowed),
        }
    }

    /// Whether this packet is the one to be lost. If so, it was the last.
    pub(super) fn loses(&self, bytes: usize) -> bool {
        let spared = self.spared.load(Ordering::Relaxed);
        if bytes <= spared {
            return false;
        }
        let order = Ordering::Relaxed;
        let taken = self
            .spared
            .compare_exchange(spared, NO_PACKET, order, order);
        taken.is_ok()
    }

    pub(super) fn in_force(&self) -> arc_swap::Guard<Arc<Conditions>> {
        self.conditions.load()
    }

    /// Makes the forwarder look at everything anew.
    pub(super) fn wake(&self) {
        // It fails only when the counter is full, and then the forwarder is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Readable after [`wake`](Self::wake).
    pub(super) fn waker(&self) -> &OwnedFd {
        &self.wake
    }
}
