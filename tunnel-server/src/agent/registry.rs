//! Which agents are connected, and by which tunnels.
//!
//! The rules are in `core`, a plain structure; this is the lock around it and the guard that
//! ends a membership.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tunnel_common::identity::{ClientId, Label};

use self::core::{Core, JoinError, Place, Serial};
use super::tunnel::Tunnel;

pub(crate) mod core;

/// The connected agents. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<Core<Arc<Tunnel>>>>);

impl Registry {
    /// Enters a tunnel, until the membership is dropped. Tunnels that it takes the place of get no
    /// new visit from now on, and are retired.
    pub(crate) fn join(&self, tunnel: Arc<Tunnel>, place: Place) -> Result<Membership, JoinError> {
        let id = tunnel.client();
        let joined = self.lock().join(id, place, tunnel)?;
        for displaced in joined.displaced {
            displaced.retire();
        }
        Ok(Membership {
            id,
            serial: joined.serial,
            registry: self.clone(),
        })
    }

    /// The tunnels that may take a visit for `label` now, best first: fewest visits in flight.
    pub(crate) fn tunnels(&self, label: Label) -> Vec<Arc<Tunnel>> {
        let mut tunnels: Vec<_> = self.lock().serving(label).cloned().collect();
        tunnels.sort_by_cached_key(|tunnel| tunnel.visits_in_flight());
        tunnels
    }

    /// How many agents are connected.
    pub(crate) fn agents(&self) -> usize {
        self.lock().agents()
    }

    fn lock(&self) -> MutexGuard<'_, Core<Arc<Tunnel>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One tunnel's place in the registry. Dropping it removes that tunnel, and no other of its agent.
#[derive(Debug)]
pub(crate) struct Membership {
    id: ClientId,
    serial: Serial,
    registry: Registry,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.lock().leave(self.id.label(), self.serial);
    }
}
