//! Tunnels that come, serve and go in every order: an id is there if and only if a tunnel is that has it.

use std::sync::Arc;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::Mutex;
use shuttle::thread;
use tunnel_common::wire::frame::Instance;

use super::super::seats::{Seats, Stay};
use super::*;

/// How many orders of events are tried with each change.
const SCHEDULES: usize = 100_000;
/// How many are where there is time.
const MANY_SCHEDULES: usize = 1_000_000;
/// Tunnels that come and go at the same time.
const TUNNELS: usize = 3;
/// Places for each id, so that one of them must sometimes go for another.
const LIMIT: usize = 2;

/// A lock by which shuttle chooses who comes next.
impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.lock().expect("not poisoned"))
    }
}

type Locked = Mutex<Core<Tunnel>>;

/// A tunnel that remembers what it was told.
#[derive(Clone, Debug)]
struct Tunnel(Arc<Mutex<Told>>);

#[derive(Debug)]
struct Told {
    instance: Instance,
    seats: Seats,
    is_retired: bool,
    /// That its process leads, when it began to serve or later.
    leads: bool,
    /// All its memberships have been dropped.
    is_gone: bool,
}

impl Tunnel {
    fn new(instance: Instance) -> Self {
        Self(Arc::new(Mutex::new(Told {
            instance,
            seats: Seats::default(),
            is_retired: false,
            leads: false,
            is_gone: false,
        })))
    }

    fn instance(&self) -> Instance {
        self.0.with(|told| told.instance)
    }

    fn stays(&self, change: impl FnOnce(&mut Seats) -> Stay) {
        self.0.with(|told| {
            let stay = change(&mut told.seats);
            told.is_retired |= stay == Stay::Retires;
        });
    }

    fn is_it(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Seated for Tunnel {
    fn gains_place(&self) {
        self.0.with(|told| told.seats.gained());
    }

    fn gives_up_place(&self) {
        self.stays(Seats::gave_up);
    }

    fn loses_place(&self) {
        self.stays(Seats::lost);
    }

    fn inherits(&self, from: &Self) {
        assert_eq!(self.instance(), from.instance(), "of another process");
    }

    fn meets_replica(&self) {}

    fn has_company(&self) {}

    fn takes_lead(&self) {
        self.0.with(|told| told.leads = true);
    }
}

/// The two ids of the agent: every tunnel proves one, some both.
fn ids() -> [ClientId; 2] {
    [b"one", b"two"].map(|seed| ClientId::of_spki(seed))
}

/// One of two processes, one of three epochs, one of two slots.
fn any_place() -> Place {
    let mut random = thread_rng();
    Place {
        instance: Instance::new([random.gen_range(0..2); 16]),
        epoch: random.gen_range(0..3),
        slot: random.gen_range(0..2),
    }
}

/// The main endpoint, for which its process would mostly order certificates.
fn any_service() -> Service {
    Service {
        endpoint: EndpointRef::default(),
        orders: thread_rng().gen_bool(0.7),
    }
}

/// The tunnel gets an answer, which says whether it leads.
fn knows_who_leads(tunnel: &Tunnel, membership: &Membership<Tunnel, Locked>) {
    let leads = membership.leads().is_some();
    tunnel.0.with(|told| told.leads |= leads);
}

/// What is left of a tunnel that has come: its memberships that serve, and those that do not.
#[derive(Debug)]
struct Left {
    tunnel: Tunnel,
    serving: Vec<Membership<Tunnel, Locked>>,
    waiting: Vec<Membership<Tunnel, Locked>>,
}

/// A tunnel comes for one id or both, serves or does not, and stays or goes.
fn come_and_perhaps_go(members: &Members<Tunnel, Locked>) -> Left {
    let place = any_place();
    let tunnel = Tunnel::new(place.instance);
    let keys = thread_rng().gen_range(1..=2);
    let (mut serving, mut waiting) = (vec![], vec![]);
    for id in ids().into_iter().take(keys) {
        let Ok(membership) = members.enter(id, place, tunnel.clone()) else {
            continue;
        };
        let serves = thread_rng().gen_bool(0.8);
        match membership.serve(serves.then(any_service)) {
            Ok(()) if serves => {
                knows_who_leads(&tunnel, &membership);
                // It may wish otherwise, unless it has lost its place.
                if thread_rng().gen_bool(0.3) && membership.serve(Some(any_service())).is_ok() {
                    knows_who_leads(&tunnel, &membership);
                }
                serving.push(membership);
            }
            _ => waiting.push(membership),
        }
    }
    if thread_rng().gen_bool(0.5) {
        (serving, waiting) = (vec![], vec![]);
        tunnel.0.with(|told| told.is_gone = true);
    }
    Left {
        tunnel,
        serving,
        waiting,
    }
}

/// Whoever looks, whenever, never sees a tunnel that is gone.
fn nobody_is_gone(members: &Members<Tunnel, Locked>) {
    for id in ids() {
        members.look(|core| {
            let mut tunnels = core.serving(id.label()).map(|serving| serving.tunnel);
            assert!(!tunnels.any(|tunnel| tunnel.0.with(|told| told.is_gone)));
        });
    }
}

/// Whoever looks, whenever, sees one process that leads if any serves that would order, and it is one of
/// those.
fn one_leads(members: &Members<Tunnel, Locked>) {
    for id in ids() {
        members.look(|core| {
            let ordering = core
                .serving(id.label())
                .filter(|serving| serving.service.orders);
            let mut processes = ordering.map(|serving| serving.instance);
            match core.leader(id.label()) {
                Some(leader) => assert!(processes.any(|process| process == leader)),
                None => assert_eq!(processes.count(), 0, "nobody leads those who order"),
            }
        });
    }
}

/// Every tunnel of the process that leads has been told so.
fn leaders_know(left: &[Left]) {
    for one in left {
        let leads = one.serving.iter().any(|member| member.leads().is_some());
        assert!(!leads || one.tunnel.0.with(|told| told.leads), "{one:?}");
    }
}

/// What is served is served by tunnels that are left, and each tunnel that was not told to retire is.
fn all_is_told(members: &Members<Tunnel, Locked>, left: &[Left]) {
    for id in ids() {
        members.look(|core| {
            let served: Vec<_> = core.serving(id.label()).map(|s| s.tunnel.clone()).collect();
            for one in left {
                let memberships = one.serving.iter().filter(|member| member.id == id);
                let times = served.iter().filter(|tunnel| tunnel.is_it(&one.tunnel));
                let (memberships, times) = (memberships.count(), times.count());
                assert!(times <= memberships, "served without a membership");
                let all = one.serving.len() + one.waiting.len();
                let is_retired = one.tunnel.0.with(|told| told.is_retired);
                // A tunnel with one membership that was not retired has its place.
                assert!(times == memberships || is_retired || all > 1, "{one:?}");
            }
            let known = |tunnel: &Tunnel| left.iter().any(|one| one.tunnel.is_it(tunnel));
            assert!(served.iter().all(known), "served by nobody");
        });
    }
    for one in left {
        // It has lost one, and had no other then: that is what retires.
        one.tunnel.0.with(|told| {
            let places = told.seats.places();
            let has_lost = places < one.serving.len() + one.waiting.len();
            assert!(!told.is_retired || has_lost || told.is_gone, "{one:?}");
            assert!(told.is_retired || !has_lost || places > 0, "{one:?}");
        });
    }
}

fn tunnels_come_and_go() {
    let members: Members<Tunnel, Locked> = Members::new(Core::with_limit(LIMIT));
    let coming = (0..TUNNELS).map(|_| {
        let members = members.clone();
        thread::spawn(move || come_and_perhaps_go(&members))
    });
    let coming: Vec<_> = coming.collect();
    nobody_is_gone(&members);
    one_leads(&members);
    let left = coming.into_iter().map(|one| one.join().expect("no panic"));
    let left: Vec<_> = left.collect();
    nobody_is_gone(&members);
    one_leads(&members);
    leaders_know(&left);
    all_is_told(&members, &left);
    drop(left);
    assert_eq!(members.look(Core::agents), 0, "an id without a tunnel");
}

#[test]
fn an_id_is_there_exactly_while_a_tunnel_has_it_in_a_hundred_thousand_orders() {
    shuttle::check_random(tunnels_come_and_go, SCHEDULES);
}

#[test]
#[ignore = "a minute or more: `make test-all`"]
fn an_id_is_there_exactly_while_a_tunnel_has_it_in_a_million_orders() {
    shuttle::check_random(tunnels_come_and_go, MANY_SCHEDULES);
}
