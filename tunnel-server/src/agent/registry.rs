//! Which agents are connected, and by which tunnels.
//!
//! The rules are in `core`, a plain structure; this is the lock around it and the guard that
//! ends a membership.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tunnel_common::identity::{ClientId, Label};
use tunnel_common::wire::frame::{EndpointRef, Instance};

use self::core::{Core, JoinError, Place, Serial, Serving};
use super::right::Right;
use super::tunnel::Tunnel;

pub(crate) mod core;

/// The connected agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<Core<Holder>>>);

/// A tunnel, and the right by which visits for one of its keys come to it.
#[derive(Clone, Debug)]
struct Holder {
    tunnel: Arc<Tunnel>,
    right: Arc<Right>,
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
        let (id, right, tunnel) = (right.agent(), right.clone(), tunnel.clone());
        let holder = Holder { tunnel, right };
        // Before anybody can take the place away.
        holder.tunnel.has_place();
        let entered = self.lock().enter(id, place, holder.clone());
        let entered = entered.inspect_err(|_| holder.tunnel.gives_up_place())?;
        if let Some(displaced) = entered.displaced {
            displaced.tunnel.is_displaced();
        }
        Ok(Membership {
            id,
            serial: entered.serial,
            tunnel: holder.tunnel,
            registry: self.clone(),
        })
    }

    /// The tunnels that may take a visit for `label` now, best first: of the process with the fewest
    /// visits in flight, by whichever of its tunnels has the fewest. Those in doubt are among them only
    /// if there are no others.
    pub(crate) fn candidates(&self, label: Label) -> Vec<Candidate> {
        let candidate = |serving: Serving<'_, Holder>| Candidate {
            tunnel: serving.tunnel.tunnel.clone(),
            instance: serving.instance,
            right: serving.tunnel.right.clone(),
            endpoint: serving.endpoint.clone(),
        };
        let serving: Vec<_> = self.lock().serving(label).map(candidate).collect();
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

    /// A visit was left unanswered over `tunnel`: whether anybody is at its other end is in doubt, and at
    /// the other end of the other tunnels of its process.
    pub(crate) fn doubt(&self, label: Label, tunnel: &Arc<Tunnel>) {
        tunnel.doubt();
        let core = self.lock();
        let is_it = |serving: &Serving<'_, Holder>| Arc::ptr_eq(&serving.tunnel.tunnel, tunnel);
        let Some(instance) = core.serving(label).find(is_it).map(|it| it.instance) else {
            return;
        };
        let of_process = core.serving(label).filter(|one| one.instance == instance);
        let others = of_process.filter(|one| !is_it(one));
        others.for_each(|other| other.tunnel.tunnel.doubt());
    }

    /// `tunnel` is trusted again: visits that wait at the agent's others may move here.
    pub(crate) fn is_trusted_again(&self, label: Label) {
        let core = self.lock();
        core.serving(label)
            .for_each(|serving| serving.tunnel.tunnel.tell_visits());
    }

    /// Whether a visit for `label` that waits at `tunnel`, which is suspect, could go to one that is not
    /// even in doubt.
    pub(crate) fn has_better(&self, label: Label, tunnel: &Arc<Tunnel>) -> bool {
        let core = self.lock();
        let mut others = core.serving(label).map(|serving| &serving.tunnel.tunnel);
        tunnel.is_suspect()
            && others.any(|other| !Arc::ptr_eq(other, tunnel) && !other.is_doubted())
    }

    /// How many agents are connected.
    pub(crate) fn agents(&self) -> usize {
        self.lock().agents()
    }

    fn lock(&self) -> MutexGuard<'_, Core<Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One tunnel's place in the registry. Dropping it removes that tunnel, and no other of its agent.
#[derive(Debug)]
pub(crate) struct Membership {
    id: ClientId,
    serial: Serial,
    tunnel: Arc<Tunnel>,
    registry: Registry,
}

impl Membership {
    /// From now on visits come for this endpoint, or for none. Tunnels that this one takes the
    /// place of get no new visit, and are retired when they have no other. Those of other processes are asked whether they
    /// are still there: this may be what came after one that was killed.
    pub(crate) fn serve(&self, endpoint: Option<EndpointRef>) -> Result<(), JoinError> {
        let label = self.id.label();
        let mut core = self.registry.lock();
        let begins = endpoint.is_some() && !core.process_serves(label, self.serial);
        let displaced = core.serve(label, self.serial, endpoint)?;
        if begins {
            core.replicas(label, self.serial)
                .for_each(|holder| holder.tunnel.doubt());
        }
        core.serving(label)
            .for_each(|serving| serving.tunnel.tunnel.tell_visits());
        drop(core);
        for holder in displaced {
            holder.tunnel.is_displaced();
            holder.tunnel.tell_visits();
        }
        Ok(())
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.registry.lock().leave(self.id.label(), self.serial) {
            self.tunnel.gives_up_place();
        }
    }
}
