//! The line between two namespaces, and whether this machine can have one.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::conditions::Conditions;
use super::direction::Direction;
use super::forwarder::{Carrier, Forwarder, Meets};
use super::lane::Lane;
use super::leftovers;
use super::namespace::Namespace;
use super::nat::Nat;
use super::tun::{self, Tun};

/// The agent's address.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The relay's address.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// An address for another relay, once a story has given it to the far end
/// ([`Namespace::add_address`]).
pub const FAR_TWO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The agent's IPv6 address, on machines that have IPv6.
pub const NEAR_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The relay's IPv6 address, on machines that have IPv6.
pub const FAR_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Where this variable is `1`, a machine that can not have a line fails the story.
pub const REQUIRE: &str = "REQUIRE_NETSIM";
/// What decides which packets are lost, unless a story says otherwise.
const SEED: u64 = 0x6e65_7473_696d;

/// Two namespaces and the line between them. Dropping it ends and removes all of it.
#[derive(Debug)]
pub struct Line {
    // The forwarders end before the devices' namespaces go.
    _forwarders: [Forwarder; 2],
    up: Arc<Direction>,
    down: Arc<Direction>,
    nat: Arc<Nat>,
    near: Namespace,
    far: Namespace,
}

/// A line without faults. `None`, and a word on standard error, if this machine can not have one;
/// a panic instead if it must ([`REQUIRE`]).
pub fn line() -> Option<Line> {
    line_with_seed(SEED)
}

/// The same; another seed loses other packets.
pub fn line_with_seed(seed: u64) -> Option<Line> {
    match namespaces() {
        Ok((near, far)) => Some(Line::between(near, far, seed).expect("root may set up a device")),
        Err(error) if std::env::var(REQUIRE).is_ok_and(|value| value == "1") => {
            panic!("{REQUIRE}=1, but there is no simulated network: {error}")
        }
        Err(error) => {
            eprintln!("SKIPPED: this machine has no simulated network: {error}");
            None
        }
    }
}

/// What a machine may be unable to do. All that fails later is a fault.
fn namespaces() -> io::Result<(Namespace, Namespace)> {
    if !rustix::process::geteuid().is_root() {
        return Err(io::Error::other("it takes root"));
    }
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    device.map_err(|error| io::Error::other(format!("/dev/net/tun: {error}")))?;
    leftovers::sweep();
    Ok((Namespace::create("near")?, Namespace::create("far")?))
}

impl Line {
    fn between(near: Namespace, far: Namespace, seed: u64) -> io::Result<Self> {
        let (near_tun, far_tun) = (device(&near, NEAR, NEAR_V6)?, device(&far, FAR, FAR_V6)?);
        let (up, down) = (Direction::new(), Direction::new());
        let nat = Arc::new(Nat::new());
        let carrier =
            |from: &Arc<Tun>, to: &Arc<Tun>, direction: &Arc<Direction>, meets, seed| Carrier {
                from: from.clone(),
                to: to.clone(),
                direction: direction.clone(),
                meets,
                lane: Lane::new(seed, Instant::now()),
                spare: vec![],
            };
        let leaving = Meets::Leaving(nat.clone());
        let coming = Meets::Coming(nat.clone());
        let upward = carrier(&near_tun, &far_tun, &up, leaving, seed);
        let downward = carrier(&far_tun, &near_tun, &down, coming, seed.wrapping_add(1));
        Ok(Self {
            _forwarders: [
                Forwarder::start("up", upward),
                Forwarder::start("down", downward),
            ],
            up,
            down,
            nat,
            near,
            far,
        })
    }

    /// The namespace of the agent and its local service, with the address [`NEAR`].
    pub fn near(&self) -> &Namespace {
        &self.near
    }

    /// The namespace of the relay and its visitors, with the address [`FAR`].
    pub fn far(&self) -> &Namespace {
        &self.far
    }

    /// Takes an IPv4 address of its device away from the near end, the first of which is [`NEAR`]. With the
    /// last one all its routes go.
    pub fn near_loses(&self, address: Ipv4Addr) {
        self.change_near("del", address);
    }

    /// Gives the near end an IPv4 address of the line's network, besides what it has.
    pub fn near_gets(&self, address: Ipv4Addr) {
        self.change_near("add", address);
    }

    fn change_near(&self, verb: &str, address: Ipv4Addr) {
        let command = format!("address {verb} {address}/24 dev {}\n", tun::NAME);
        let changed = self.near.configure(&command);
        changed.expect("root may change an address");
    }

    /// From near to far.
    pub fn up(&self) -> &Direction {
        &self.up
    }

    /// From far to near.
    pub fn down(&self) -> &Direction {
        &self.down
    }

    /// Changes the conditions of both directions.
    pub fn both(&self, change: impl Fn(&mut Conditions)) {
        self.up.change(&change);
        self.down.change(&change);
    }

    /// The NAT at the near end.
    pub fn nat(&self) -> &Nat {
        &self.nat
    }
}

/// Makes the device of a namespace, with its addresses.
fn device(namespace: &Namespace, v4: Ipv4Addr, v6: Ipv6Addr) -> io::Result<Arc<Tun>> {
    let tun = namespace.enter(Tun::open)?;
    let name = tun::NAME;
    let mut commands = format!("link set lo up\naddress add {v4}/24 dev {name}\n");
    if Path::new("/proc/sys/net/ipv6").exists() {
        // A line has two ends and no routers to ask for.
        commands += &format!("link set {name} addrgenmode none\n");
        commands += &format!("address add {v6}/64 dev {name} nodad\n");
    }
    commands += &format!("link set {name} up\nroute add default dev {name}\n");
    namespace.configure(&commands)?;
    Ok(Arc::new(tun))
}
