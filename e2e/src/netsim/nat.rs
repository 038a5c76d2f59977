//! The NAT in front of the near end, as a home router is one: UDP and TCP over IPv4.
//!
//! It is off at first. A mapping is made by the first packet that leaves and is the same towards
//! everybody; what comes to no mapping is dropped. Other protocols and fragments pass as they are.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::packet::{Protocol, Side, address, flow, readdress};

/// The first address that the far end sees; each [`Nat::rebind_address`] takes the next.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// The first port that the far end sees. None is used a second time before all were.
const FIRST_PORT: u16 = 20_000;

/// The NAT of a line.
#[derive(Debug)]
pub struct Nat {
    on: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    outside: Ipv4Addr,
    next_port: u16,
    outward: HashMap<(Protocol, SocketAddrV4), SocketAddrV4>,
    inward: HashMap<(Protocol, SocketAddrV4), SocketAddrV4>,
}

impl Nat {
    pub(super) fn new() -> Self {
        Self {
            on: AtomicBool::new(false),
            table: Mutex::new(Table {
                outside: FIRST_ADDRESS,
                next_port: FIRST_PORT,
                outward: HashMap::new(),
                inward: HashMap::new(),
            }),
        }
    }

    /// Switches it on, for good: connections that were made before break, as behind a new router.
    pub fn on(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// Forgets all mappings: what leaves from now on comes from other ports, and what comes to the
    /// old ones is dropped.
    pub fn rebind(&self) {
        let mut table = self.table();
        table.outward.clear();
        table.inward.clear();
    }

    /// As [`rebind`](Self::rebind), and the far end sees another address too.
    pub fn rebind_address(&self) {
        self.rebind();
        let mut table = self.table();
        table.outside = Ipv4Addr::from(u32::from(table.outside) + 1);
    }

    /// The address that the far end sees.
    pub fn outside(&self) -> Ipv4Addr {
        self.table().outside
    }

    /// Gives a packet that leaves the address that the far end sees.
    pub(super) fn outward(&self, packet: &mut [u8]) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        let Some(flow) = flow(packet) else { return };
        let Some(inside) = address(packet, &flow, Side::Source) else {
            return;
        };
        let outside = self.table().map(flow.protocol, inside);
        readdress(packet, &flow, Side::Source, outside);
    }

    /// Gives a packet that comes the address of whom it is for; false if there is nobody.
    pub(super) fn inward(&self, packet: &mut [u8]) -> bool {
        if !self.on.load(Ordering::Relaxed) {
            return true;
        }
        let Some(flow) = flow(packet) else {
            return true;
        };
        let Some(outside) = address(packet, &flow, Side::Destination) else {
            return true;
        };
        let inside = self.table().inward.get(&(flow.protocol, outside)).copied();
        if let Some(inside) = inside {
            readdress(packet, &flow, Side::Destination, inside);
        }
        inside.is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("not poisoned")
    }
}

impl Table {
    fn map(&mut self, protocol: Protocol, inside: SocketAddrV4) -> SocketAddrV4 {
        if let Some(known) = self.outward.get(&(protocol, inside)) {
            return *known;
        }
        let outside = SocketAddrV4::new(self.outside, self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        self.outward.insert((protocol, inside), outside);
        self.inward.insert((protocol, outside), inside);
        outside
    }
}
