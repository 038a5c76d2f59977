//! The registry's rules, without locks, clocks or sockets.
//!
//! * An agent is present exactly while one of its tunnels is.
//! * Within one instance (process) a higher epoch takes the place of all lower ones; a lower one
//!   comes too late.
//! * Different instances of one key are equal replicas.
//! * Two keys with one label can not both be reached by it: the later is refused.

use std::collections::HashMap;

use tunnel_common::identity::{ClientId, Label};
use tunnel_common::wire::frame::{Hello, Instance};

/// Tunnels of one agent at one time: a pool of four, twice during a restart, and another process.
/// One more displaces the oldest.
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

/// Why a tunnel may not join.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum JoinError {
    /// Another key has the same label. That is no accident: labels have 128 bits.
    #[error("another key holds this id")]
    LabelTaken,
    /// A newer tunnel of the same process is here already.
    #[error("a newer tunnel of the same agent is connected")]
    Outdated,
}

/// A tunnel that has joined.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Joined<T> {
    /// To leave by.
    pub(crate) serial: Serial,
    /// The tunnels whose place it took, which are no longer members.
    pub(crate) displaced: Vec<T>,
}

/// Who is connected. `T` is a tunnel.
#[derive(Debug)]
pub(crate) struct Core<T> {
    agents: HashMap<Label, Agent<T>>,
    next: Serial,
}

#[derive(Debug)]
struct Agent<T> {
    id: ClientId,
    /// In the order in which they joined.
    members: Vec<Member<T>>,
}

#[derive(Debug)]
struct Member<T> {
    serial: Serial,
    place: Place,
    tunnel: T,
}

impl<T> Default for Core<T> {
    fn default() -> Self {
        Self {
            agents: HashMap::new(),
            next: 0,
        }
    }
}

impl<T> Core<T> {
    /// Enters a tunnel of the agent `id`.
    pub(crate) fn join(
        &mut self,
        id: ClientId,
        place: Place,
        tunnel: T,
    ) -> Result<Joined<T>, JoinError> {
        let agent = self.agents.entry(id.label()).or_insert_with(|| Agent {
            id,
            members: vec![],
        });
        if agent.id != id {
            return Err(JoinError::LabelTaken);
        }
        if agent
            .members
            .iter()
            .any(|member| supersedes(member.place, place))
        {
            return Err(JoinError::Outdated);
        }
        let mut displaced: Vec<T> = agent
            .members
            .extract_if(.., |member| supersedes(place, member.place))
            .map(|member| member.tunnel)
            .collect();
        if agent.members.len() >= MAX_TUNNELS_PER_AGENT {
            displaced.push(agent.members.remove(0).tunnel);
        }
        self.next += 1;
        let serial = self.next;
        agent.members.push(Member {
            serial,
            place,
            tunnel,
        });
        Ok(Joined { serial, displaced })
    }

    /// Removes one tunnel. One that was displaced is gone already.
    pub(crate) fn leave(&mut self, label: Label, serial: Serial) {
        if let Some(agent) = self.agents.get_mut(&label) {
            agent.members.retain(|member| member.serial != serial);
            if agent.members.is_empty() {
                self.agents.remove(&label);
            }
        }
    }

    /// The tunnels of the agent with this label.
    pub(crate) fn serving(&self, label: Label) -> impl Iterator<Item = &T> {
        let members = self
            .agents
            .get(&label)
            .map_or(&[][..], |agent| &agent.members);
        members.iter().map(|member| &member.tunnel)
    }

    /// How many agents are present.
    pub(crate) fn agents(&self) -> usize {
        self.agents.len()
    }
}

/// Whether a tunnel at `newer` takes the place of one at `older`.
fn supersedes(newer: Place, older: Place) -> bool {
    let same_slot = newer.epoch == older.epoch && newer.slot == older.slot;
    newer.instance == older.instance && (newer.epoch > older.epoch || same_slot)
}

#[cfg(test)]
mod tests {
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

    fn serving(core: &Core<&'static str>, id: ClientId) -> Vec<&'static str> {
        core.serving(id.label()).copied().collect()
    }

    #[test]
    fn an_agent_is_present_while_one_of_its_tunnels_is() {
        let mut core = Core::default();
        let first = core.join(id(1), place(1, 0), "first").expect("joins");
        let second = core.join(id(1), place(2, 0), "second").expect("joins");
        assert_eq!(serving(&core, id(1)), ["first", "second"]);
        core.leave(id(1).label(), first.serial);
        assert_eq!(serving(&core, id(1)), ["second"]);
        core.leave(id(1).label(), second.serial);
        assert_eq!((serving(&core, id(1)).len(), core.agents()), (0, 0));
    }

    #[test]
    fn a_reconnect_displaces_and_the_death_of_the_old_tunnel_removes_nothing_else() {
        let mut core = Core::default();
        let old = core.join(id(1), place(1, 0), "old").expect("joins");
        let new = core.join(id(1), place(1, 1), "new").expect("joins");
        assert_eq!(new.displaced, ["old"]);
        core.leave(id(1).label(), old.serial);
        assert_eq!(serving(&core, id(1)), ["new"]);
    }

    #[test]
    fn a_tunnel_of_an_earlier_epoch_comes_too_late() {
        let mut core = Core::default();
        core.join(id(1), place(1, 5), "new").expect("joins");
        assert_eq!(
            core.join(id(1), place(1, 4), "old"),
            Err(JoinError::Outdated)
        );
        assert_eq!(
            core.join(id(1), place(1, 5), "twin"),
            Err(JoinError::Outdated)
        );
        assert_eq!(serving(&core, id(1)), ["new"]);
    }

    #[test]
    fn parallel_connections_of_one_epoch_stand_side_by_side() {
        let mut core = Core::default();
        for slot in 0..4 {
            let joined = core
                .join(
                    id(1),
                    Place {
                        slot,
                        ..place(1, 0)
                    },
                    "slot",
                )
                .expect("joins");
            assert!(joined.displaced.is_empty());
        }
        assert_eq!(serving(&core, id(1)).len(), 4);
        let next = core.join(id(1), place(1, 1), "next").expect("joins");
        assert_eq!(next.displaced.len(), 4);
    }

    #[test]
    fn agents_do_not_touch_each_other() {
        let mut core = Core::default();
        core.join(id(1), place(1, 0), "one").expect("joins");
        let two = core.join(id(2), place(1, 9), "two").expect("joins");
        assert!(two.displaced.is_empty());
        core.leave(id(1).label(), two.serial);
        assert_eq!(
            (serving(&core, id(1)), serving(&core, id(2))),
            (vec!["one"], vec!["two"])
        );
    }

    #[test]
    fn one_tunnel_too_many_displaces_the_oldest() {
        let mut core = Core::default();
        for instance in 0..MAX_TUNNELS_PER_AGENT {
            let name = if instance == 0 { "oldest" } else { "older" };
            core.join(id(1), place(instance as u8, 0), name)
                .expect("joins");
        }
        let joined = core.join(id(1), place(200, 0), "newest").expect("joins");
        assert_eq!(joined.displaced, ["oldest"]);
        assert_eq!(serving(&core, id(1)).len(), MAX_TUNNELS_PER_AGENT);
    }
}
