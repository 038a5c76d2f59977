//! The rules of `core` behind a lock, and the guard that ends a membership.

use std::marker::PhantomData;
use std::sync::Arc;

use tunnel_common::identity::{ClientId, Label};
use tunnel_common::wire::frame::EndpointRef;

use super::core::{Core, JoinError, Place, Serial, Service};
use super::lock::Lock;

/// What a tunnel is told about its places.
pub(crate) trait Seated: Clone {
    /// It has got one more.
    fn gains_place(&self);

    /// It has given one up by itself.
    fn gives_up_place(&self);

    /// Another tunnel has got one of its.
    fn loses_place(&self);

    /// It takes the place of another tunnel of its process, and with it the challenges that wait there.
    fn inherits(&self, from: &Self);

    /// Another process of its agent has begun to serve.
    fn meets_replica(&self);

    /// Another tunnel of its agent serves.
    fn has_company(&self);

    /// Its process leads from now on.
    fn takes_lead(&self);
}

/// All tunnels, behind a lock of the kind `L`. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Members<T, L> {
    core: Arc<L>,
    tunnels: PhantomData<T>,
}

impl<T, L> Clone for Members<T, L> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            tunnels: PhantomData,
        }
    }
}

impl<T: Seated, L: Lock<Core<T>>> Default for Members<T, L> {
    fn default() -> Self {
        Self::new(Core::default())
    }
}

impl<T: Seated, L: Lock<Core<T>>> Members<T, L> {
    /// Those of `core`.
    pub(crate) fn new(core: Core<T>) -> Self {
        Self {
            core: Arc::new(L::new(core)),
            tunnels: PhantomData,
        }
    }

    /// Enters a tunnel for the key `id`, until the membership is dropped. It takes no visits yet. If the
    /// key has too many tunnels, one of them loses its place.
    pub(crate) fn enter(
        &self,
        id: ClientId,
        place: Place,
        tunnel: T,
    ) -> Result<Membership<T, L>, JoinError> {
        // Before anybody can take the place away.
        tunnel.gains_place();
        let entered = self.change(id.label(), |core| core.enter(id, place, tunnel.clone()));
        let entered = entered.inspect_err(|_| tunnel.gives_up_place())?;
        if let Some(displaced) = entered.displaced {
            displaced.loses_place();
        }
        Ok(Membership {
            id,
            serial: entered.serial,
            tunnel,
            members: self.clone(),
        })
    }

    /// Changes who is here for `label`. If that makes another process lead, its tunnels are told.
    fn change<R>(&self, label: Label, act: impl FnOnce(&mut Core<T>) -> R) -> R {
        self.core.with(|core| {
            let before = core.leader(label);
            let result = act(core);
            let leader = core.leader(label);
            if leader != before {
                let serving = core.serving(label);
                let leading = serving.filter(|serving| Some(serving.instance) == leader);
                leading.for_each(|serving| serving.tunnel.takes_lead());
            }
            result
        })
    }

    /// Looks at what is there now.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Core<T>) -> R) -> R {
        self.core.with(|core| look(core))
    }
}

/// One tunnel's place. Dropping it removes that tunnel, and no other of its agent.
#[derive(Debug)]
pub(crate) struct Membership<T: Seated, L: Lock<Core<T>>> {
    id: ClientId,
    serial: Serial,
    tunnel: T,
    members: Members<T, L>,
}

impl<T: Seated, L: Lock<Core<T>>> Membership<T, L> {
    /// From now on visits come for this, or for nothing. Tunnels that this one takes the place of
    /// lose it. Those of other processes are told: this may be what came after one that was killed.
    pub(crate) fn serve(&self, service: Option<Service>) -> Result<(), JoinError> {
        let label = self.id.label();
        let displaced = self.members.change(label, |core| {
            let begins = service.is_some() && !core.process_serves(label, self.serial);
            let displaced = core.serve(label, self.serial, service)?;
            // Before anybody looks: the agent may not have announced anything on this one yet.
            displaced.iter().for_each(|old| self.tunnel.inherits(old));
            if begins {
                core.replicas(label, self.serial).for_each(T::meets_replica);
            }
            core.serving(label)
                .for_each(|serving| serving.tunnel.has_company());
            Ok(displaced)
        })?;
        for tunnel in displaced {
            tunnel.loses_place();
            tunnel.has_company();
        }
        Ok(())
    }

    /// The endpoint that the tunnel serves, if its process leads: of all that serve the key, this one orders
    /// its certificates.
    pub(crate) fn leads(&self) -> Option<EndpointRef> {
        let label = self.id.label();
        let members = &self.members;
        members.look(|core| core.leads(label, self.serial).cloned())
    }
}

impl<T: Seated, L: Lock<Core<T>>> Drop for Membership<T, L> {
    fn drop(&mut self) {
        let label = self.id.label();
        let was_there = self
            .members
            .change(label, |core| core.leave(label, self.serial));
        if was_there {
            self.tunnel.gives_up_place();
        }
    }
}

#[cfg(test)]
mod tests;
