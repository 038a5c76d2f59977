//! What all tunnels of a link have in common.

use std::sync::Arc;

use tunnel_common::budget::MemoryBudget;
use tunnel_common::proof::Exporter;
use tunnel_common::wire::frame::{Hello, Instance, Wanted};

use super::dial::Dialler;
use super::policy::Policy;
use crate::announcements::Announcements;
use crate::endpoint::{Endpoint, ProveError};
use crate::standing::Standing;
use crate::status::Published;
use crate::visit::Venue;

/// One agent's attachment to one relay.
#[derive(Debug)]
pub(crate) struct Link {
    /// How to reach the relay.
    pub(crate) dialler: Dialler,
    /// Which connection carries the tunnel.
    pub(crate) policy: Policy,
    /// What all visits share.
    pub(crate) venue: Arc<Venue>,
    /// What local services that do not read may pin.
    pub(crate) budget: MemoryBudget,
    /// This process, as this relay sees it. No other link has the same: epochs are counted by link, and a
    /// relay that is reached under two names must take the two for replicas, of which both serve, and
    /// not for one process whose links put each other out.
    pub(crate) instance: Instance,
    /// Which of the agent's links this is.
    pub(crate) number: usize,
    /// Where it is told how the links stand.
    pub(crate) standing: Arc<Standing>,
    /// At which names certificate authorities may come.
    pub(crate) announcements: Announcements,
}

/// Which of its process's tunnels a tunnel is: see [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Within a process the tunnels of the highest epoch serve.
    pub(super) epoch: u64,
    /// Of these, which one.
    pub(super) slot: u16,
    /// How many there are.
    pub(super) slots: u16,
}

impl Link {
    /// What to say first on a tunnel for this place. It wishes for nothing: several tunnels may be
    /// tried for it, and only one is wanted.
    pub(super) fn hello(&self, place: Place) -> Hello {
        Hello {
            instance: self.instance,
            epoch: place.epoch,
            slot: place.slot,
            slots: place.slots,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            features: vec![],
            rev: 0,
            wanted: vec![],
        }
    }

    /// What to ask for on the connection of `exporter`, whose handshake proved the first endpoint's
    /// key.
    pub(super) fn wishes(&self, exporter: &Exporter) -> Result<Vec<Wanted>, ProveError> {
        let endpoints = &self.venue.endpoints;
        let Some(proven) = endpoints.first().map(Endpoint::name) else {
            return Ok(vec![]);
        };
        let wanted = endpoints
            .iter()
            .map(|endpoint| endpoint.wanted(proven, exporter));
        wanted.collect()
    }

    /// A tunnel serves these endpoints.
    pub(super) fn is_serving(&self, published: Vec<Published>) {
        self.standing.is_serving(self.number, published);
    }

    /// No tunnel serves.
    pub(crate) fn is_cut_off(&self) {
        for endpoint in &self.venue.endpoints {
            endpoint.is_cut_off(self.number);
        }
        self.standing.is_cut_off(self.number);
    }
}
