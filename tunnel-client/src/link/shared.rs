//! What all tunnels of a link have in common.

use std::sync::Arc;

use tokio::sync::watch;
use tunnel_common::budget::MemoryBudget;
use tunnel_common::proof::Exporter;
use tunnel_common::wire::frame::{Hello, Instance, Wanted};

use super::dial::Dialler;
use super::policy::Policy;
use crate::endpoint::{Endpoint, ProveError};
use crate::status::{Published, Status};
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
    /// This process.
    pub(crate) instance: Instance,
    /// Where the agent's state is told.
    pub(crate) status: watch::Sender<Status>,
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
        self.is(Status::Serving(published));
    }

    /// No tunnel serves.
    pub(super) fn is_cut_off(&self) {
        self.is(Status::Connecting);
    }

    /// Told only where it changes.
    fn is(&self, status: Status) {
        self.status.send_if_modified(|now| {
            let is_news = *now != status;
            *now = status;
            is_news
        });
    }
}
