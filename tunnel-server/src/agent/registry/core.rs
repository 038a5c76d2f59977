//! The registry's rules, without locks, clocks or sockets.
//!
//! * An agent's name is served exactly while one of its tunnels serves.
//! * Within one instance (process) a tunnel of a higher epoch that begins to serve takes the place
//!   of all lower ones; a lower one comes too late.
//! * Different instances of one key are equal replicas. Of those that would order certificates one leads:
//!   the first that began to serve, for as long as any of its tunnels serves and would order, and then that
//!   of the oldest tunnel that does.
//! * Two keys with one label can not both be reached by it: the later is refused.

use std::cmp::Reverse;
use std::collections::HashMap;

use tunnel_common::identity::{ClientId, Label};
use tunnel_common::wire::frame::{EndpointRef, Hello, Instance};

/// Tunnels of one agent at one time: each may pin a window. Sixteen processes have one each, or four a
/// pool of four.
pub(crate) const MAX_TUNNELS_PER_AGENT: usize = 16;

/// Tells the tunnels of a registry apart; never used again.
pub(crate) type Serial = u64;

/// Which of its agent's tunnels a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The process.
    pub(crate) instance: Instance,
    /// Its count of reconnects.
    pub(crate) epoch: u64,
    /// Which of its parallel connections.
    pub(crate) slot: u16,
}

impl From<&Hello> for Place {
    fn from(hello: &Hello) -> Self {
        Self {
            instance: hello.instance,
            epoch: hello.epoch,
            slot: hello.slot,
        }
    }
}

/// What a tunnel serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// What the agent calls the endpoint.
    pub(crate) endpoint: EndpointRef,
    /// Whether its process would order certificates for it.
    pub(crate) orders: bool,
}

/// Why a tunnel may not join, or not serve.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum JoinError {
    /// Another key has the same label. That is no accident: labels have 128 bits.
    #[error("another key holds this id")]
    LabelTaken,
    /// A newer tunnel of the same process serves already, or this one has lost its place.
    #[error("a newer tunnel of the same agent is connected")]
    Outdated,
}

/// A tunnel that has entered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entered<T> {
    /// To serve and to leave by.
    pub(crate) serial: Serial,
    /// The tunnel that had to go for it, which is no longer a member.
    pub(crate) displaced: Option<T>,
}

/// A tunnel that serves.
#[derive(Debug)]
pub(crate) struct Serving<'a, T> {
    /// The tunnel.
    pub(crate) tunnel: &'a T,
    /// The agent's process.
    pub(crate) instance: Instance,
    /// What it serves.
    pub(crate) service: &'a Service,
}

/// Who is connected. `T` is a tunnel.
#[derive(Debug)]
pub(crate) struct Core<T> {
    agents: HashMap<Label, Agent<T>>,
    next: Serial,
    /// Tunnels of one agent at one time.
    limit: usize,
}

#[derive(Debug)]
struct Agent<T> {
    id: ClientId,
    /// In the order in which they entered.
    members: Vec<Member<T>>,
    /// The process that leads, while anybody serves that would order certificates.
    leader: Option<Instance>,
}

#[derive(Debug)]
struct Member<T> {
    serial: Serial,
    place: Place,
    tunnel: T,
    /// What it serves, if it does.
    service: Option<Service>,
}

impl<T> Member<T> {
    fn serves(&self) -> bool {
        self.service.is_some()
    }

    /// Whether it serves, and its process would order certificates.
    fn orders(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.orders)
    }
}

impl<T> Agent<T> {
    /// Which member must go for a tunnel at `place`: its predecessor, else one that does not serve, else
    /// one of an earlier epoch of its process, else the oldest of the process that has most. So a process
    /// keeps a tunnel as long as another has several.
    fn one_too_many(&self, place: Place) -> usize {
        let members = &self.members;
        let size = |instance| {
            let own = members.iter().filter(|m| m.place.instance == instance);
            own.count()
        };
        let rank = |member: &Member<T>| {
            let is_own = member.place.instance == place.instance;
            let rank = match () {
                () if member.place == place => 0,
                () if !member.serves() => 1,
                () if is_own && member.place.epoch < place.epoch => 2,
                () => 3,
            };
            (rank, Reverse(size(member.place.instance)), member.serial)
        };
        let ranked = members.iter().enumerate();
        let first = ranked.min_by_key(|(_, member)| rank(member));
        first.map_or(0, |(at, _)| at)
    }

    /// Finds out who leads, after a change.
    fn elect(&mut self) {
        let ordering = self.members.iter().filter(|member| member.orders());
        let mut processes = ordering.map(|member| member.place.instance);
        let oldest = processes.clone().next();
        let still = self.leader.filter(|leader| processes.any(|p| p == *leader));
        self.leader = still.or(oldest);
    }
}

impl<T> Default for Core<T> {
    fn default() -> Self {
        Self::with_limit(MAX_TUNNELS_PER_AGENT)
    }
}

impl<T> Core<T> {
    /// Nobody, and of each agent no more tunnels than `limit` at one time.
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            agents: HashMap::new(),
            next: 0,
            limit,
        }
    }

    /// Enters a tunnel of the agent `id`, which does not serve yet.
    pub(crate) fn enter(
        &mut self,
        id: ClientId,
        place: Place,
        tunnel: T,
    ) -> Result<Entered<T>, JoinError> {
        let agent = self.agents.entry(id.label()).or_insert_with(|| Agent {
            id,
            members: vec![],
            leader: None,
        });
        if agent.id != id {
            return Err(JoinError::LabelTaken);
        }
        if agent
            .members
            .iter()
            .filter(|member| member.serves())
            .any(|member| is_newer(member.place, place))
        {
            return Err(JoinError::Outdated);
        }
        let full = agent.members.len() >= self.limit;
        let displaced = full.then(|| agent.members.remove(agent.one_too_many(place)).tunnel);
        self.next += 1;
        let serial = self.next;
        agent.members.push(Member {
            serial,
            place,
            tunnel,
            service: None,
        });
        agent.elect();
        Ok(Entered { serial, displaced })
    }

    /// Lets a tunnel serve this, or nothing. Gives the tunnels whose place it took, which are
    /// no longer members.
    pub(crate) fn serve(
        &mut self,
        label: Label,
        serial: Serial,
        service: Option<Service>,
    ) -> Result<Vec<T>, JoinError> {
        let agent = self.agents.get_mut(&label).ok_or(JoinError::Outdated)?;
        let this = agent
            .members
            .iter_mut()
            .find(|member| member.serial == serial);
        let this = this.ok_or(JoinError::Outdated)?;
        let place = this.place;
        let Some(service) = service else {
            this.service = None;
            agent.elect();
            return Ok(vec![]);
        };
        let others = |member: &Member<T>| member.serial != serial && member.serves();
        if agent
            .members
            .iter()
            .any(|m| others(m) && is_newer(m.place, place))
        {
            return Err(JoinError::Outdated);
        }
        let displaced = agent.members.extract_if(.., |member| {
            others(member) && (is_newer(place, member.place) || place == member.place)
        });
        let displaced = displaced.map(|member| member.tunnel).collect();
        for member in &mut agent.members {
            if member.serial == serial {
                member.service = Some(service.clone());
            }
        }
        agent.elect();
        Ok(displaced)
    }

    /// Removes one tunnel. Gives whether it was there: one that was displaced is gone already.
    pub(crate) fn leave(&mut self, label: Label, serial: Serial) -> bool {
        let Some(agent) = self.agents.get_mut(&label) else {
            return false;
        };
        let before = agent.members.len();
        agent.members.retain(|member| member.serial != serial);
        agent.elect();
        let was_there = agent.members.len() < before;
        if agent.members.is_empty() {
            self.agents.remove(&label);
        }
        was_there
    }

    /// The tunnels that serve the agent with this label.
    pub(crate) fn serving(&self, label: Label) -> impl Iterator<Item = Serving<'_, T>> {
        let agents = self.agents.get(&label).into_iter();
        agents.flat_map(|agent| {
            agent.members.iter().filter_map(|member| {
                Some(Serving {
                    tunnel: &member.tunnel,
                    instance: member.place.instance,
                    service: member.service.as_ref()?,
                })
            })
        })
    }

    fn members(&self, label: Label) -> &[Member<T>] {
        self.agents.get(&label).map_or(&[], |agent| &agent.members)
    }

    /// Whether a tunnel of the same process serves as this one's.
    pub(crate) fn process_serves(&self, label: Label, serial: Serial) -> bool {
        let members = self.members(label);
        let this = members.iter().find(|member| member.serial == serial);
        this.is_some_and(|this| {
            let mut own = members
                .iter()
                .filter(|other| other.place.instance == this.place.instance);
            own.any(Member::serves)
        })
    }

    /// The tunnels of other processes than that of this one.
    pub(crate) fn replicas(&self, label: Label, serial: Serial) -> impl Iterator<Item = &T> {
        let members = self.members(label);
        let this = members.iter().find(|member| member.serial == serial);
        let instance = this.map(|member| member.place.instance);
        let others = members
            .iter()
            .filter(move |m| Some(m.place.instance) != instance);
        others.map(|member| &member.tunnel)
    }

    /// The process that leads the agent with this label; nobody if none serves that would order.
    pub(crate) fn leader(&self, label: Label) -> Option<Instance> {
        self.agents.get(&label)?.leader
    }

    /// What this tunnel serves, if its process leads and would order certificates for that.
    pub(crate) fn leads(&self, label: Label, serial: Serial) -> Option<&EndpointRef> {
        let leader = self.leader(label)?;
        let members = self.members(label).iter();
        let mut own = members.filter(|m| m.serial == serial && m.place.instance == leader);
        let service = own.next()?.service.as_ref();
        Some(&service.filter(|service| service.orders)?.endpoint)
    }

    /// How many agents are connected.
    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }
}

/// Whether `one` is of the same process as `other`, and of a later reconnect.
fn is_newer(one: Place, other: Place) -> bool {
    one.instance == other.instance && one.epoch > other.epoch
}

#[cfg(test)]
mod tests;
