//! The registry's rules, one by one.

use super::*;

fn id(seed: u8) -> ClientId {
    ClientId::of_spki(&[seed])
}

fn place(instance: u8, epoch: u64) -> Place {
    Place {
        instance: Instance::new([instance; 16]),
        epoch,
        slot: 0,
    }
}

/// The main endpoint, for which its process would order certificates or not.
fn main_endpoint(orders: bool) -> Option<Service> {
    let endpoint = EndpointRef::default();
    Some(Service { endpoint, orders })
}

type Tunnels = Core<&'static str>;

fn serving(core: &Tunnels, id: ClientId) -> Vec<&'static str> {
    core.serving(id.label())
        .map(|serving| *serving.tunnel)
        .collect()
}

/// Enters and serves at once; gives the serial and what was displaced.
fn join(
    core: &mut Tunnels,
    id: ClientId,
    place: Place,
    name: &'static str,
) -> Result<(Serial, Vec<&'static str>), JoinError> {
    let entered = core.enter(id, place, name)?;
    let mut displaced = core.serve(id.label(), entered.serial, main_endpoint(true))?;
    displaced.extend(entered.displaced);
    Ok((entered.serial, displaced))
}

#[test]
fn an_agent_is_served_while_one_of_its_tunnels_serves() {
    let mut core = Core::default();
    let (first, _) = join(&mut core, id(1), place(1, 0), "first").expect("joins");
    let (second, _) = join(&mut core, id(1), place(2, 0), "second").expect("joins");
    assert_eq!(serving(&core, id(1)), ["first", "second"]);
    core.leave(id(1).label(), first);
    assert_eq!(serving(&core, id(1)), ["second"]);
    core.leave(id(1).label(), second);
    assert_eq!((serving(&core, id(1)).len(), core.agents()), (0, 0));
}

#[test]
fn a_tunnel_that_serves_nothing_gets_no_visits_and_displaces_nobody() {
    let mut core = Core::default();
    join(&mut core, id(1), place(1, 0), "serving").expect("joins");
    let waiting = core.enter(id(1), place(1, 1), "waiting").expect("enters");
    assert_eq!(waiting.displaced, None);
    assert_eq!(serving(&core, id(1)), ["serving"]);
    let displaced = core.serve(id(1).label(), waiting.serial, main_endpoint(true));
    assert_eq!(displaced, Ok(vec!["serving"]));
    assert_eq!(serving(&core, id(1)), ["waiting"]);
    assert_eq!(core.serve(id(1).label(), waiting.serial, None), Ok(vec![]));
    assert!(serving(&core, id(1)).is_empty());
}

#[test]
fn a_renamed_endpoint_is_never_out_of_service() {
    let mut core = Core::default();
    let (serial, _) = join(&mut core, id(1), place(1, 0), "tunnel").expect("joins");
    let renamed = EndpointRef::try_from("web".to_owned()).expect("a ref");
    let service = Service {
        endpoint: renamed.clone(),
        orders: false,
    };
    assert_eq!(core.serve(id(1).label(), serial, Some(service)), Ok(vec![]));
    let served: Vec<_> = core.serving(id(1).label()).collect();
    assert_eq!(served[0].service.endpoint, renamed);
}

#[test]
fn a_reconnect_displaces_and_the_death_of_the_old_tunnel_removes_nothing_else() {
    let mut core = Core::default();
    let (old, _) = join(&mut core, id(1), place(1, 0), "old").expect("joins");
    let (_, displaced) = join(&mut core, id(1), place(1, 1), "new").expect("joins");
    assert_eq!(displaced, ["old"]);
    core.leave(id(1).label(), old);
    assert_eq!(serving(&core, id(1)), ["new"]);
    let late_wish = core.serve(id(1).label(), old, main_endpoint(true));
    assert_eq!(
        late_wish,
        Err(JoinError::Outdated),
        "the old one can not come back"
    );
}

#[test]
fn a_tunnel_of_an_earlier_epoch_comes_too_late() {
    let mut core = Core::default();
    join(&mut core, id(1), place(1, 5), "new").expect("joins");
    assert_eq!(
        join(&mut core, id(1), place(1, 4), "old"),
        Err(JoinError::Outdated)
    );
    assert_eq!(serving(&core, id(1)), ["new"]);
}

#[test]
fn a_second_tunnel_in_the_same_place_takes_it_over() {
    let mut core = Core::default();
    join(&mut core, id(1), place(1, 5), "first").expect("joins");
    let (_, displaced) = join(&mut core, id(1), place(1, 5), "second").expect("joins");
    assert_eq!(
        (displaced, serving(&core, id(1))),
        (vec!["first"], vec!["second"])
    );
}

#[test]
fn parallel_connections_of_one_epoch_stand_side_by_side() {
    let mut core = Core::default();
    for slot in 0..4 {
        let place = Place {
            slot,
            ..place(1, 0)
        };
        let (_, displaced) = join(&mut core, id(1), place, "slot").expect("joins");
        assert!(displaced.is_empty());
    }
    assert_eq!(serving(&core, id(1)).len(), 4);
    let (_, displaced) = join(&mut core, id(1), place(1, 1), "next").expect("joins");
    assert_eq!(displaced.len(), 4);
}

#[test]
fn agents_do_not_touch_each_other() {
    let mut core = Core::default();
    join(&mut core, id(1), place(1, 0), "one").expect("joins");
    let (two, displaced) = join(&mut core, id(2), place(1, 9), "two").expect("joins");
    assert!(displaced.is_empty());
    core.leave(id(1).label(), two);
    assert_eq!(
        (serving(&core, id(1)), serving(&core, id(2))),
        (vec!["one"], vec!["two"])
    );
}

#[test]
fn one_tunnel_too_many_displaces_the_oldest_and_one_that_does_not_serve_first() {
    let mut core = Core::default();
    join(&mut core, id(1), place(0, 0), "oldest").expect("joins");
    core.enter(id(1), place(1, 0), "idle").expect("enters");
    for instance in 2..MAX_TUNNELS_PER_AGENT {
        join(&mut core, id(1), place(instance as u8, 0), "older").expect("joins");
    }
    let (_, displaced) = join(&mut core, id(1), place(200, 0), "newest").expect("joins");
    assert_eq!(displaced, ["idle"]);
    let (_, displaced) = join(&mut core, id(1), place(201, 0), "newest").expect("joins");
    assert_eq!(displaced, ["oldest"]);
}

fn slot(instance: u8, epoch: u64, slot: u16) -> Place {
    Place {
        slot,
        ..place(instance, epoch)
    }
}

/// A full house: the process 0 has all places but one.
fn full_house() -> Tunnels {
    let mut core = Core::default();
    join(&mut core, id(1), place(1, 0), "single").expect("joins");
    for number in 1..MAX_TUNNELS_PER_AGENT {
        join(&mut core, id(1), slot(0, 0, number as u16), "of many").expect("joins");
    }
    core
}

#[test]
fn in_a_full_house_a_process_with_many_tunnels_makes_room_for_one_with_none() {
    let mut core = full_house();
    let (_, displaced) = join(&mut core, id(1), place(2, 0), "new").expect("joins");
    assert_eq!(displaced, ["of many"]);
    assert!(serving(&core, id(1)).contains(&"single"));
}

#[test]
fn in_a_full_house_a_tunnel_takes_the_place_of_its_predecessor_or_of_an_earlier_epoch() {
    let mut core = full_house();
    let (_, displaced) = join(&mut core, id(1), place(1, 0), "again").expect("joins");
    assert_eq!(displaced, ["single"]);
    let (_, displaced) = join(&mut core, id(1), place(1, 1), "better").expect("joins");
    assert_eq!(displaced, ["again"]);
    assert_eq!(serving(&core, id(1)).len(), MAX_TUNNELS_PER_AGENT);
}

#[test]
fn a_process_serves_while_one_of_its_tunnels_does() {
    let mut core = Core::default();
    let (first, _) = join(&mut core, id(1), slot(1, 0, 0), "first").expect("joins");
    let second = core.enter(id(1), slot(1, 0, 1), "second").expect("enters");
    let other = core.enter(id(1), place(2, 0), "other").expect("enters");
    let label = id(1).label();
    assert!(core.process_serves(label, second.serial));
    assert!(!core.process_serves(label, other.serial));
    core.leave(label, first);
    assert!(!core.process_serves(label, second.serial));
}

/// Who leads, by the number of its process.
fn leader(core: &Tunnels) -> Option<u8> {
    let is_it = |number: &u8| core.leader(id(1).label()) == Some(Instance::new([*number; 16]));
    (0..=u8::MAX).find(is_it)
}

#[test]
fn the_first_process_that_serves_leads_while_any_of_its_tunnels_does() {
    let mut core = Core::default();
    let label = id(1).label();
    let waiting = core.enter(id(1), place(9, 0), "waiting").expect("enters");
    assert_eq!(leader(&core), None, "nobody serves");
    let (first, _) = join(&mut core, id(1), slot(1, 0, 0), "first").expect("joins");
    let (second, _) = join(&mut core, id(1), slot(1, 0, 1), "second").expect("joins");
    let (other, _) = join(&mut core, id(1), place(2, 0), "other").expect("joins");
    let served = core.serve(label, waiting.serial, main_endpoint(true));
    assert_eq!((served, leader(&core)), (Ok(vec![]), Some(1)));
    assert_eq!(core.leads(label, second), Some(&EndpointRef::default()));
    assert_eq!(core.leads(label, other), None);
    core.leave(label, first);
    assert_eq!(leader(&core), Some(1));
    assert_eq!(core.leads(label, first), None, "it is gone");
}

#[test]
fn a_process_that_takes_over_from_itself_goes_on_leading() {
    let mut core = Core::default();
    let (old, _) = join(&mut core, id(1), place(1, 0), "old").expect("joins");
    join(&mut core, id(1), place(2, 0), "other").expect("joins");
    let (new, _) = join(&mut core, id(1), place(1, 1), "new").expect("joins");
    core.leave(id(1).label(), old);
    assert_eq!(leader(&core), Some(1));
    let served = core.leads(id(1).label(), new);
    assert_eq!(served, Some(&EndpointRef::default()));
}

#[test]
fn when_the_leader_has_gone_the_process_of_the_oldest_tunnel_leads_and_keeps_it() {
    let mut core = Core::default();
    let label = id(1).label();
    let (first, _) = join(&mut core, id(1), place(1, 0), "first").expect("joins");
    core.enter(id(1), place(2, 0), "waiting").expect("enters");
    let (third, _) = join(&mut core, id(1), place(3, 0), "third").expect("joins");
    let (fourth, _) = join(&mut core, id(1), place(4, 0), "fourth").expect("joins");
    core.leave(label, first);
    assert_eq!(leader(&core), Some(3));
    join(&mut core, id(1), place(1, 1), "first again").expect("joins");
    assert_eq!(leader(&core), Some(3));
    // To serve nothing is as good as to go.
    assert_eq!(core.serve(label, third, None), Ok(vec![]));
    assert_eq!((leader(&core), core.leads(label, third)), (Some(4), None));
    core.leave(label, fourth);
    assert_eq!(leader(&core), Some(1));
}

#[test]
fn who_is_put_out_of_a_full_house_leads_no_more() {
    let mut core = Core::with_limit(2);
    join(&mut core, id(1), place(1, 0), "first").expect("joins");
    join(&mut core, id(1), place(2, 0), "second").expect("joins");
    join(&mut core, id(1), place(3, 0), "third").expect("joins");
    assert_eq!(serving(&core, id(1)), ["second", "third"]);
    assert_eq!(leader(&core), Some(2));
}

/// Serves by a tunnel that is there, or changes what it serves.
fn serve(core: &mut Tunnels, serial: Serial, orders: bool) {
    let served = core.serve(id(1).label(), serial, main_endpoint(orders));
    assert_eq!(served, Ok(vec![]));
}

#[test]
fn of_those_that_serve_only_one_that_would_order_leads() {
    let mut core = Core::default();
    let serials = [1, 2, 3].map(|number| {
        let entered = core.enter(id(1), place(number, 0), "tunnel");
        entered.expect("enters").serial
    });
    let [first, second, third] = serials;
    serve(&mut core, first, false);
    assert_eq!(leader(&core), None, "nobody would order");
    assert_eq!(core.leads(id(1).label(), first), None);
    serve(&mut core, third, true);
    serve(&mut core, second, true);
    assert_eq!(leader(&core), Some(3), "it came first of those");
    core.leave(id(1).label(), third);
    assert_eq!(leader(&core), Some(2));
    core.leave(id(1).label(), second);
    assert_eq!((leader(&core), serving(&core, id(1)).len()), (None, 1));
}

#[test]
fn who_wishes_otherwise_may_lead_from_then_on_or_leads_no_more() {
    let mut core = Core::default();
    let label = id(1).label();
    let (first, _) = join(&mut core, id(1), slot(1, 0, 0), "first").expect("joins");
    let (beside, _) = join(&mut core, id(1), slot(1, 0, 1), "beside").expect("joins");
    let (second, _) = join(&mut core, id(1), place(2, 0), "second").expect("joins");
    serve(&mut core, first, false);
    assert_eq!(leader(&core), Some(1), "another tunnel of it would order");
    assert_eq!(core.leads(label, first), None, "this one would not");
    assert_eq!(core.leads(label, beside), Some(&EndpointRef::default()));
    serve(&mut core, beside, false);
    assert_eq!(leader(&core), Some(2));
    serve(&mut core, first, true);
    assert_eq!(leader(&core), Some(2), "it stays");
    serve(&mut core, second, false);
    assert_eq!(leader(&core), Some(1));
}
