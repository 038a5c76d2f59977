//! Whether anything still comes from the relay.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts what comes over one connection. Over QUIC it keeps the connection open.
#[derive(Clone, Debug)]
pub(super) enum Pulse {
    /// In packets.
    Quic(quinn::Connection),
    /// In bytes.
    H2(Arc<AtomicU64>),
}

impl Pulse {
    fn received(&self) -> u64 {
        match self {
            Self::Quic(connection) => connection.stats().udp_rx.datagrams,
            Self::H2(bytes) => bytes.load(Ordering::Relaxed),
        }
    }
}

/// The pulses of a pool, by slot. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulses(Arc<Mutex<BTreeMap<u16, Pulse>>>);

impl Pulses {
    /// Another tunnel serves in this place.
    pub(super) fn begin(&self, slot: u16, pulse: Pulse) {
        self.lock().insert(slot, pulse);
    }

    /// None does any more.
    pub(super) fn end(&self, slot: u16) {
        self.lock().remove(&slot);
    }

    /// Changes whenever anything has come, or a tunnel has come or gone.
    pub(super) fn received(&self) -> Vec<(u16, u64)> {
        let pulses = self.lock();
        let received = pulses.iter().map(|(slot, pulse)| (*slot, pulse.received()));
        received.collect()
    }

    /// The longest round trip to the relay, as far as it is known.
    pub(super) fn round_trip(&self) -> Duration {
        let pulses = self.lock();
        let round_trips = pulses.values().map(|pulse| match pulse {
            Pulse::Quic(connection) => connection.rtt(),
            Pulse::H2(_) => Duration::ZERO,
        });
        round_trips.max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Pulse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
