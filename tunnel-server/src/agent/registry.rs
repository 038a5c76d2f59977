//! Which agents are connected, and by which tunnels.
//!
//! The rules are in `core`, a plain structure; `members` is the lock around it and the guard that ends a
//! membership. Here is what visits ask.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::wire::frame::{EndpointRef, Instance};

use self::core::{Core, JoinError, Place, Serving};
use self::members::{Members, Seated};
use super::right::Right;
use super::tunnel::Tunnel;

pub(crate) mod core;
pub(crate) mod lock;
mod members;
pub(crate) mod seats;

/// One tunnel's place in the registry. Dropping it removes that tunnel, and no other of its agent.
pub(crate) type Membership = members::Membership<Holder, Mutex<Core<Holder>>>;

/// The connected agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Members<Holder, Mutex<Core<Holder>>>);

/// A tunnel, and the right by which visits for one of its keys come to it.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    tunnel: Arc<Tunnel>,
    right: Arc<Right>,
}

impl Seated for Holder {
    fn gains_place(&self) {
        self.tunnel.gains_place();
    }

    fn gives_up_place(&self) {
        self.tunnel.gives_up_place();
    }

    fn loses_place(&self) {
        self.tunnel.loses_place();
    }

    fn inherits(&self, from: &Self) {
        self.tunnel.inherits(&from.tunnel);
    }

    fn meets_replica(&self) {
        self.tunnel.doubt();
    }

    fn has_company(&self) {
        self.tunnel.tell_visits();
    }

    fn takes_lead(&self) {
        self.tunnel.takes_lead();
    }
}

/// A tunnel that may take a visit.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// The tunnel.
    pub(crate) tunnel: Arc<Tunnel>,
    /// The agent's process: several tunnels may lead to it.
    instance: Instance,
    /// The right by which the visit comes.
    pub(crate) right: Arc<Right>,
    /// Its agent's name of the endpoint that is visited.
    pub(crate) endpoint: EndpointRef,
}

impl Candidate {
    fn of(serving: &Serving<'_, Holder>) -> Self {
        Self {
            tunnel: serving.tunnel.tunnel.clone(),
            instance: serving.instance,
            right: serving.tunnel.right.clone(),
            endpoint: serving.service.endpoint.clone(),
        }
    }

    fn load(&self) -> (Instance, usize) {
        (self.instance, self.tunnel.visits_in_flight())
    }
}

impl Registry {
    /// Enters a tunnel for the key of `right`, until the membership is dropped. It takes no visits
    /// yet. If the key has too many tunnels, the oldest loses its place.
    pub(crate) fn enter(
        &self,
        right: &Arc<Right>,
        tunnel: &Arc<Tunnel>,
        place: Place,
    ) -> Result<Membership, JoinError> {
        let (right, tunnel) = (right.clone(), tunnel.clone());
        self.0.enter(right.agent(), place, Holder { tunnel, right })
    }

    /// The tunnels that may take a visit for `label` now, best first: of the process with the fewest
    /// visits in flight, by whichever of its tunnels has the fewest. Those in doubt are among them only
    /// if there are no others.
    pub(crate) fn candidates(&self, label: Label) -> Vec<Candidate> {
        let serving: Vec<_> = self
            .0
            .look(|core| core.serving(label).map(|one| Candidate::of(&one)).collect());
        let loads: Vec<_> = serving.iter().map(Candidate::load).collect();
        // Those in doubt count too, or a process that is frozen would look idle.
        let of_process = |instance| -> usize {
            let own = loads.iter().filter(|(process, _)| *process == instance);
            own.map(|(_, visits)| visits).sum()
        };
        let mut candidates: Vec<_> = serving.into_iter().zip(&loads).collect();
        let is_trusted = |candidate: &Candidate| !candidate.tunnel.is_doubted();
        if candidates
            .iter()
            .any(|(candidate, _)| is_trusted(candidate))
        {
            candidates.retain(|(candidate, _)| is_trusted(candidate));
        }
        candidates.sort_by_cached_key(|(_, (instance, visits))| (of_process(*instance), *visits));
        candidates
            .into_iter()
            .map(|(candidate, _)| candidate)
            .collect()
    }

    /// The tunnels that serve `label` and have announced a challenge at `host`, and no others: the one
    /// whose turn it is comes first, and those in doubt last. It has had its turn then.
    pub(crate) fn challenged(&self, label: Label, host: &Hostname) -> Vec<Candidate> {
        let now = Instant::now();
        let turn_of = |candidate: &Candidate| candidate.tunnel.challenges(|c| c.turn(host, now));
        // Under the lock, so that of those who come at once each gets another one.
        self.0.look(|core| {
            let serving = core.serving(label).map(|one| Candidate::of(&one));
            let pending = serving.filter_map(|one| Some((turn_of(&one)?, one)));
            let mut waiting: Vec<_> = pending.collect();
            waiting.sort_by_cached_key(|(turn, one)| (one.tunnel.is_doubted(), *turn));
            let latest = waiting.iter().map(|(turn, _)| *turn).max();
            if let (Some((_, first)), Some(latest)) = (waiting.first(), latest) {
                first.tunnel.challenges(|c| c.asked(host, latest + 1));
            }
            waiting.into_iter().map(|(_, one)| one).collect()
        })
    }

    /// A visit was left unanswered over `tunnel`: whether anybody is at its other end is in doubt, and at
    /// the other end of the other tunnels of its process.
    pub(crate) fn doubt(&self, label: Label, tunnel: &Arc<Tunnel>) {
        tunnel.doubt();
        let is_it = |serving: &Serving<'_, Holder>| Arc::ptr_eq(&serving.tunnel.tunnel, tunnel);
        self.0.look(|core| {
            let Some(instance) = core.serving(label).find(is_it).map(|it| it.instance) else {
                return;
            };
            let of_process = core.serving(label).filter(|one| one.instance == instance);
            let others = of_process.filter(|one| !is_it(one));
            others.for_each(|other| other.tunnel.tunnel.doubt());
        });
    }

    /// A tunnel of the agent is trusted again: visits that wait at others may move there.
    pub(crate) fn is_trusted_again(&self, label: Label) {
        self.0.look(|core| {
            core.serving(label)
                .for_each(|serving| serving.tunnel.tunnel.tell_visits());
        });
    }

    /// Whether a visit for `label` that waits at `tunnel`, which is suspect, could go to one that is not
    /// even in doubt.
    pub(crate) fn has_better(&self, label: Label, tunnel: &Arc<Tunnel>) -> bool {
        tunnel.is_suspect()
            && self.0.look(|core| {
                let mut others = core.serving(label).map(|serving| &serving.tunnel.tunnel);
                others.any(|other| !Arc::ptr_eq(other, tunnel) && !other.is_doubted())
            })
    }

    /// How many agents are connected.
    pub(crate) fn agents(&self) -> usize {
        self.0.look(Core::agents)
    }
}
