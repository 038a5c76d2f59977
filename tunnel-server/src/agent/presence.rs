//! A tunnel as others see it: whose keys it proved, and which of their endpoints it serves.
//!
//! 1. [`Presence::question`]: what the agent wishes for, by which keys; it is asked by `asking`.
//! 2. [`Presence::settle`]: what was decided becomes rights, memberships in the registry, and the
//!    answer to the wishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};
use tunnel_common::escape::Escaped;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{ClientId, Label};
use tunnel_common::proof::Exporter;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Frame, Granted, Hello, Outcome, Refused, Wanted};

use super::asking::{Answer, Decision, Question, undecided};
use super::claims::{Claimed, hosts_of, is_of, refusal, refuse, refuse_all};
use super::grant::{Claim, MAX_ENDPOINTS, grant, too_many};
use super::held::Held;
use super::identity::Identity;
use super::registry::core::{JoinError, Place, Service};
use super::right::Right;
use super::tunnel::Tunnel;
use crate::admission::Applicant;
use crate::names::Names;
use crate::state::State;

/// Whoever decides is not asked about the same key more often than that.
const MIN_ASK_AGAIN: Duration = Duration::from_secs(1);
/// Wishes of one agent that are answered; the rest is not looked at.
const MAX_WISHES: usize = 16;

/// A tunnel in the registry. Dropping it takes the tunnel out.
#[derive(Debug)]
pub(super) struct Presence {
    tunnel: Arc<Tunnel>,
    place: Place,
    /// The agent's, for the log.
    version: String,
    main: Identity,
    exporter: Exporter,
    rev: u64,
    wanted: Vec<Wanted>,
    /// What the agent was told last; nothing before it was let in.
    granted: Option<Vec<Granted>>,
    /// The revision of the wishes that this answers.
    answered: u64,
    /// Whether it was ever granted anything.
    has_published: bool,
    held: HashMap<ClientId, Held>,
    ask_again: Option<Instant>,
    /// When an agent that has said that it goes must have gone.
    leaves: Option<Instant>,
    /// When one that has never published anything must have wished for something.
    wishes: Option<Instant>,
}

impl Presence {
    /// A tunnel over whose handshake `main` was proved. Nobody sees it before it is settled.
    pub(super) fn new(tunnel: Tunnel, hello: Hello, main: Identity, exporter: Exporter) -> Self {
        let mut presence = Self {
            tunnel: Arc::new(tunnel),
            place: Place::from(&hello),
            version: hello.agent_version,
            main,
            exporter,
            rev: 0,
            wanted: vec![],
            granted: None,
            answered: 0,
            has_published: false,
            held: HashMap::new(),
            ask_again: None,
            leaves: None,
            wishes: None,
        };
        presence.wish(hello.rev, hello.wanted);
        presence
    }

    /// The tunnel.
    pub(super) fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    /// The names of the keys that are admitted on it.
    pub(super) fn labels(&self) -> impl Iterator<Item = Label> {
        self.held.keys().map(ClientId::label)
    }

    /// Takes the agent's wishes. They are answered when they are settled.
    pub(super) fn wish(&mut self, rev: u64, mut wanted: Vec<Wanted>) {
        wanted.truncate(MAX_WISHES);
        (self.rev, self.wanted) = (rev, wanted);
    }

    /// When the question is to be asked again although no rule has changed.
    pub(super) fn ask_again(&self) -> Option<Instant> {
        self.ask_again
    }

    /// The agent goes, and must have gone `by` then: no more visits; those in flight go on.
    pub(super) fn leave(&mut self, by: Instant) {
        self.leaves.get_or_insert(by);
        for held in self.held.values_mut() {
            held.membership = None;
        }
    }

    /// When an agent that goes must have gone.
    pub(super) fn leaves(&self) -> Option<Instant> {
        self.leaves
    }

    /// What must be asked: who may come in for what is wished, and who may stay.
    pub(super) fn question(&mut self, names: &Names) -> Question {
        self.ask_again = None;
        let claims: Vec<Claimed> = (0..)
            .zip(&self.wanted)
            .map(|(at, wish)| (wish.clone(), self.identify(at, wish)))
            .collect();
        let mut identities = vec![self.main.clone()];
        let claimed = claims
            .iter()
            .filter_map(|(_, claimed)| claimed.as_ref().ok());
        let held = self.held.values().map(|held| &held.identity);
        for identity in claimed.chain(held) {
            if identities.iter().all(|known| known.id != identity.id) {
                identities.push(identity.clone());
            }
        }
        let applicant = |identity: Identity| Applicant {
            id: identity.id,
            hosts: hosts_of(identity.id, &claims, names),
            public_key: identity.public_key,
            extension: identity.extension,
        };
        Question {
            rev: self.rev,
            applicants: identities.into_iter().map(applicant).collect(),
            claims,
        }
    }

    /// Whose name a wish is for: that of the handshake's key, or of another that is proved.
    fn identify(&self, at: u16, wish: &Wanted) -> Result<Identity, Refused> {
        if at >= MAX_ENDPOINTS {
            return Err(too_many());
        }
        let Some(proof) = &wish.proof else {
            return Ok(self.main.clone());
        };
        let bad = |why: String| Refused::for_good(Code::Protocol, why);
        let certificate = proof.verify(&self.exporter);
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        Identity::of(&certificate).ok_or_else(|| bad("the certificate can not be read".to_owned()))
    }

    /// Acts on what was decided: visits come accordingly from now on. Gives the answer to the
    /// wishes. An error means that the agent may not stay: all its rights on this tunnel are gone.
    pub(super) fn settle(
        &mut self,
        answer: Answer,
        state: &State,
    ) -> Result<Vec<Granted>, Refused> {
        self.answered = answer.rev;
        let settled = self.take(answer, state);
        if settled.is_err() {
            self.held.values().for_each(|held| held.right.revoke());
            self.held.clear();
        }
        self.granted = Some(settled.clone()?);
        let is_published = self.is_published();
        if is_published && !self.has_published {
            self.has_published = true;
            let (version, epoch) = (Escaped(&self.version), self.place.epoch);
            let agents = state.registry.agents();
            match self.place.slot {
                0 => info!(%version, epoch, agents, "an agent is here"),
                slot => debug!(epoch, slot, "one more tunnel of the agent is here"),
            }
        }
        if !self.has_published {
            let by = || Instant::now() + state.timeouts.hello;
            self.wishes.get_or_insert_with(by);
        }
        settled
    }

    /// Whether the log tells of it: a tunnel that was granted something, and of a pool the first.
    pub(super) fn is_notable(&self) -> bool {
        self.has_published && self.place.slot == 0
    }

    fn is_published(&self) -> bool {
        let granted = self.granted.iter().flatten();
        let mut outcomes = granted.map(|granted| &granted.outcome);
        outcomes.any(|outcome| matches!(outcome, Outcome::Urls(_)))
    }

    /// When an agent that has never published anything must wish for something, or be gone.
    pub(super) fn wishes(&self) -> Option<Instant> {
        self.wishes.filter(|_| !self.has_published)
    }

    /// What the agent was told last.
    pub(super) fn granted(&self) -> Option<&Vec<Granted>> {
        self.granted.as_ref()
    }

    /// Looks again for which of its keys the tunnel's process leads. Gives what the agent must be told, if
    /// that has changed.
    pub(super) fn look_who_leads(&mut self) -> Option<Frame> {
        let mut granted = self.granted.clone()?;
        self.mark_leading(&mut granted);
        if self.granted.as_ref() == Some(&granted) {
            return None;
        }
        self.granted = Some(granted.clone());
        let rev = self.answered;
        Some(Frame::Granted { rev, granted })
    }

    fn mark_leading(&self, granted: &mut [Granted]) {
        let leading: Vec<_> = self.held.values().filter_map(Held::leads).collect();
        for granted in granted {
            let is_served = matches!(granted.outcome, Outcome::Urls(_));
            granted.leads = is_served && leading.contains(&granted.endpoint);
        }
    }

    fn take(&mut self, answer: Answer, state: &State) -> Result<Vec<Granted>, Refused> {
        let mut claims = answer.claims;
        for (id, hosts, decision) in answer.decisions {
            if let Err(refused) = self.decided(id, hosts, decision, &mut claims, state) {
                self.remember_to_ask(&refused);
                if id == self.main.id {
                    return Err(refused);
                }
                refuse(&mut claims, id, &refused);
            }
        }
        if self.leaves.is_some() || self.tunnel.is_retired() {
            // Nobody comes any more: what counts is who is still here.
            let main = self.main.id;
            self.held
                .retain(|id, held| *id == main || held.has_visits());
            return Ok(refuse_all(&self.wanted, &refusal(JoinError::Outdated)));
        }
        self.enter(&mut claims, state)?;
        let claims: Vec<_> = claims
            .iter()
            .map(|(wish, identity)| Claim {
                wish,
                id: identity.as_ref().map(|i| i.id).map_err(Refused::clone),
            })
            .collect();
        let granted = grant(&state.names, &claims);
        self.serve(&claims, granted)
    }

    /// Gives or takes the right of one key.
    fn decided(
        &mut self,
        id: ClientId,
        hosts: Vec<Hostname>,
        decision: Decision,
        claims: &mut [Claimed],
        state: &State,
    ) -> Result<(), Refused> {
        match decision {
            Decision::Refused(refused) => {
                if let Some(held) = self.held.remove(&id) {
                    held.right.revoke();
                }
                Err(refused)
            }
            Decision::Admitted => {
                if let Some(held) = self.held.get_mut(&id) {
                    held.hosts = hosts;
                } else if let Some(identity) = self.identity(id, claims) {
                    let right = Arc::new(Right::new(id));
                    let membership = None;
                    let held = Held {
                        identity,
                        right,
                        hosts,
                        membership,
                    };
                    self.held.insert(id, held);
                }
                Ok(())
            }
            Decision::Undecided => {
                let held = self.held.get(&id).ok_or_else(undecided)?;
                self.ask_again = Some(Instant::now() + state.timeouts.admission);
                // What was decided before stands, and nothing beyond it.
                if hosts.iter().all(|host| held.hosts.contains(host)) {
                    warn!("nobody decided in time whether the agent may stay; it stays for now");
                } else {
                    refuse(claims, id, &undecided());
                }
                Ok(())
            }
        }
    }

    fn identity(&self, id: ClientId, claims: &[Claimed]) -> Option<Identity> {
        let mut claimed = claims
            .iter()
            .filter_map(|(_, claimed)| claimed.as_ref().ok());
        let claimed = claimed.find(|identity| identity.id == id).cloned();
        claimed.or_else(|| (id == self.main.id).then(|| self.main.clone()))
    }

    /// A refusal that may pass is asked about again by ourselves: over this tunnel the agent does not.
    fn remember_to_ask(&mut self, refused: &Refused) {
        if let Some(after) = refused.retry_after {
            let after = Duration::from_millis(after).max(MIN_ASK_AGAIN);
            let at = Instant::now() + after;
            self.ask_again = Some(self.ask_again.map_or(at, |other| other.min(at)));
        }
    }

    /// Makes the tunnel a member for each key that is claimed, and for no other. What is over is
    /// forgotten.
    fn enter(&mut self, claims: &mut [Claimed], state: &State) -> Result<(), Refused> {
        let main = self.main.id;
        let mut outdated = vec![];
        self.held.retain(|id, held| {
            if !claims.iter().any(|(_, claimed)| is_of(claimed, *id)) {
                // The main key keeps its place, though nobody comes by it: places are counted.
                if *id == main {
                    return true;
                }
                held.membership = None;
                return held.has_visits();
            }
            if held.membership.is_none() {
                match state.registry.enter(&held.right, &self.tunnel, self.place) {
                    Ok(membership) => held.membership = Some(membership),
                    Err(error) => outdated.push((*id, refusal(error))),
                }
            }
            true
        });
        for (id, refused) in outdated {
            if id == main {
                return Err(refused);
            }
            refuse(claims, id, &refused);
        }
        Ok(())
    }

    /// Lets visits come for what is granted, and for nothing else.
    fn serve(
        &self,
        claims: &[Claim<'_>],
        mut granted: Vec<Granted>,
    ) -> Result<Vec<Granted>, Refused> {
        let is_new = !self.is_published();
        for (id, held) in &self.held {
            let Some(membership) = &held.membership else {
                continue;
            };
            let grants = claims.iter().zip(&mut granted);
            let mut own = grants.filter(|(claim, _)| claim.id == Ok(*id));
            let served = own.find(|(_, granted)| matches!(granted.outcome, Outcome::Urls(_)));
            let service = served.as_ref().map(|(claim, granted)| Service {
                endpoint: granted.endpoint.clone(),
                orders: claim.wish.orders,
            });
            let Err(error) = membership.serve(service) else {
                continue;
            };
            match served {
                Some(_) if *id == self.main.id && is_new => {
                    return Err(refusal(error));
                }
                Some((_, granted)) if is_new => {
                    granted.outcome = Outcome::Refused(refusal(error));
                }
                // A tunnel that has lost its place gets no visits, and drains: it is told nothing by
                // which the agent would cut what is in flight.
                _ => {}
            }
        }
        self.mark_leading(&mut granted);
        Ok(granted)
    }
}
