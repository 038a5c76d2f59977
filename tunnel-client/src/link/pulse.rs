//! Whether anything still comes from the relay, and whether this host still stands where it stood.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;

use super::movable::Movable;
use crate::host::source::{has, source};

/// Counts what comes over one connection. Over QUIC it keeps the connection open.
#[derive(Clone, Debug)]
pub(super) enum Pulse {
    /// In packets.
    Quic {
        /// The connection.
        connection: quinn::Connection,
        /// Its socket.
        endpoint: Movable,
    },
    /// In bytes.
    H2 {
        /// How many have come.
        received: Arc<AtomicU64>,
        /// Where its socket is, if the system has told.
        ends: Option<Ends>,
    },
}

/// The two ends of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The address of ours.
    pub(super) local: SocketAddr,
    /// The relay, or a proxy before it.
    pub(super) remote: SocketAddr,
}

/// What a change of the networks means to a connection, or to the worst off of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Footing {
    /// Nothing; or there is no way to the relay now, and what there will be is not known.
    Same,
    /// This host now sends to the relay from another address.
    Moved,
    /// This host no longer has the address on which the connection depends.
    Gone,
}

/// A pulse, and from where this host sent to the relay when that was looked at last.
#[derive(Debug)]
struct Felt {
    pulse: Pulse,
    source: Option<IpAddr>,
}

/// The pulses of a pool, by slot. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulses(Arc<Mutex<BTreeMap<u16, Felt>>>);

impl Pulse {
    fn received(&self) -> u64 {
        match self {
            Self::Quic { connection, .. } => connection.stats().udp_rx.datagrams,
            Self::H2 { received, .. } => received.load(Ordering::Relaxed),
        }
    }

    fn source(&self) -> Option<IpAddr> {
        match self {
            Self::Quic { connection, .. } => source(connection.remote_address()),
            Self::H2 { ends, .. } => source((*ends)?.remote),
        }
    }

    /// TCP depends on its address; our UDP sockets have none of their own.
    fn has_its_address(&self) -> bool {
        match self {
            Self::Quic { .. } | Self::H2 { ends: None, .. } => true,
            Self::H2 {
                ends: Some(ends), ..
            } => has(ends.local),
        }
    }
}

/// `before` and `now` are where this host sends from.
fn footing(before: Option<IpAddr>, now: Option<IpAddr>, has_its_address: bool) -> Footing {
    match now {
        _ if !has_its_address => Footing::Gone,
        Some(_) if now != before => Footing::Moved,
        _ => Footing::Same,
    }
}

impl Pulses {
    /// Another tunnel serves in this place.
    pub(super) fn begin(&self, slot: u16, pulse: Pulse) {
        let source = pulse.source();
        self.lock().insert(slot, Felt { pulse, source });
    }

    /// None does any more.
    pub(super) fn end(&self, slot: u16) {
        self.lock().remove(&slot);
    }

    /// Changes whenever anything has come, or a tunnel has come or gone.
    pub(super) fn received(&self) -> Vec<(u16, u64)> {
        let pulses = self.lock();
        let received = pulses
            .iter()
            .map(|(slot, felt)| (*slot, felt.pulse.received()));
        received.collect()
    }

    /// The longest round trip to the relay, as far as it is known.
    pub(super) fn round_trip(&self) -> Duration {
        let pulses = self.lock();
        let round_trips = pulses.values().map(|felt| match &felt.pulse {
            Pulse::Quic { connection, .. } => connection.rtt(),
            Pulse::H2 { .. } => Duration::ZERO,
        });
        round_trips.max().unwrap_or_default()
    }

    /// What a change of the networks since the last look means to the pool.
    pub(super) fn look(&self) -> Footing {
        let mut pulses = self.lock();
        let footings = pulses.values_mut().map(|Felt { pulse, source }| {
            let before = std::mem::replace(source, pulse.source());
            footing(before, *source, pulse.has_its_address())
        });
        footings.max().unwrap_or(Footing::Same)
    }

    /// Gives QUIC connections a new socket, over which they ask the relay at once whether it is there.
    /// HTTP/2 can not move.
    pub(super) fn rebind(&self) {
        for Felt { pulse, .. } in self.lock().values() {
            let Pulse::Quic {
                connection,
                endpoint,
            } = pulse
            else {
                continue;
            };
            // Its old socket follows the routes too, with its next packet.
            if let Err(error) = endpoint.rebind(connection.remote_address()) {
                debug!("no new socket for the tunnel: {error}");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Felt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_from_where_this_host_sends_and_whether_tcp_has_its_address() {
        let [old, new] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|ip| Some(IpAddr::from(ip)));
        assert_eq!(footing(old, old, true), Footing::Same);
        assert_eq!(footing(old, None, true), Footing::Same);
        assert_eq!(footing(None, old, true), Footing::Moved);
        assert_eq!(footing(old, new, true), Footing::Moved);
        assert_eq!(footing(old, new, false), Footing::Gone);
        assert_eq!(footing(old, None, false), Footing::Gone);
    }

    #[test]
    fn a_pool_stands_no_better_than_the_worst_of_its_tunnels() {
        let pulses = Pulses::default();
        assert_eq!(pulses.look(), Footing::Same);
        let remote = "127.0.0.1:4433".parse().expect("an address");
        // The latter is for documentation only (RFC 5737): nobody has it.
        for (slot, local) in ["127.0.0.1:1", "192.0.2.1:1"].into_iter().enumerate() {
            let local = local.parse().expect("an address");
            let pulse = Pulse::H2 {
                received: Arc::default(),
                ends: Some(Ends { local, remote }),
            };
            pulses.begin(u16::try_from(slot).expect("few"), pulse);
        }
        assert_eq!(pulses.look(), Footing::Gone);
        pulses.end(1);
        assert_eq!(pulses.look(), Footing::Same);
    }
}
