//! A tunnel as others see it: whose keys it proved, and which of their endpoints it serves.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tracing::warn;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::proof::Exporter;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Granted, Outcome, Refused, Wanted};

use super::grant::{Claim, MAX_ENDPOINTS, grant, hosts, too_many};
use super::identity::Identity;
use super::registry::Membership;
use super::registry::core::{JoinError, Place};
use super::tunnel::Tunnel;
use crate::admission::{Applicant, Verdict};
use crate::state::State;

/// When a tunnel that came too late may come again, in milliseconds: its process knows more by then.
const OUTDATED_RETRY_MS: u64 = 5_000;
/// When an agent may come again about which nobody could decide in time.
const UNDECIDED_RETRY_MS: u64 = 5_000;

/// A tunnel in the registry. Dropping it takes the tunnel out.
#[derive(Debug)]
pub(super) struct Presence {
    tunnel: Arc<Tunnel>,
    place: Place,
    main: Identity,
    exporter: Exporter,
    rev: u64,
    wanted: Vec<Wanted>,
    /// What the agent was told last.
    granted: Vec<Granted>,
    memberships: HashMap<ClientId, Membership>,
    ask_again: Option<Instant>,
    /// When an agent that has said that it goes must have gone.
    leaves: Option<Instant>,
}

/// What was decided about a key.
enum Standing {
    Admitted,
    Refused(Refused),
    /// Nobody said in time.
    Undecided,
}

impl Presence {
    /// A tunnel over whose handshake `main` was proved. Nobody sees it before [`want`](Self::want).
    pub(super) fn new(tunnel: Tunnel, place: Place, main: Identity, exporter: Exporter) -> Self {
        Self {
            tunnel: Arc::new(tunnel),
            place,
            main,
            exporter,
            rev: 0,
            wanted: vec![],
            granted: vec![],
            memberships: HashMap::new(),
            ask_again: None,
            leaves: None,
        }
    }

    /// The tunnel.
    pub(super) fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    /// The revision of the agent's wishes.
    pub(super) fn rev(&self) -> u64 {
        self.rev
    }

    /// Takes the agent's wishes and answers them; visits come accordingly from now on. An error means
    /// that the agent may not stay: the tunnel is in the registry no more.
    pub(super) async fn want(
        &mut self,
        rev: u64,
        wanted: Vec<Wanted>,
        state: &State,
    ) -> Result<Vec<Granted>, Refused> {
        (self.rev, self.wanted) = (rev, wanted);
        if self.leaves.is_some() {
            let refused = Outcome::Refused(refusal(JoinError::Outdated));
            return Ok(self.answer_all(&refused));
        }
        self.granted = self.settle(state).await?;
        Ok(self.granted.clone())
    }

    /// Asks again whether the agent may stay, and what it may serve. Gives the answer to its wishes
    /// if that is another one now.
    pub(super) async fn reconsider(
        &mut self,
        state: &State,
    ) -> Result<Option<Vec<Granted>>, Refused> {
        let granted = self.settle(state).await?;
        if granted == self.granted || self.leaves.is_some() {
            return Ok(None);
        }
        self.granted.clone_from(&granted);
        Ok(Some(granted))
    }

    /// When [`reconsider`](Self::reconsider) is due although no rule has changed.
    pub(super) fn ask_again(&self) -> Option<Instant> {
        self.ask_again
    }

    /// The agent goes, and must have gone `by` then: no more visits; those in flight go on.
    pub(super) fn leave(&mut self, by: Instant) {
        self.leaves = Some(by);
        for membership in self.memberships.values() {
            // Fails only for a tunnel that has lost its place, and gets no visits anyway.
            let _ = membership.serve(None);
        }
    }

    /// When an agent that goes must have gone.
    pub(super) fn leaves(&self) -> Option<Instant> {
        self.leaves
    }

    fn answer_all(&self, outcome: &Outcome) -> Vec<Granted> {
        let answer = |wish: &Wanted| Granted {
            endpoint: wish.endpoint.clone(),
            outcome: outcome.clone(),
        };
        self.wanted.iter().map(answer).collect()
    }

    async fn settle(&mut self, state: &State) -> Result<Vec<Granted>, Refused> {
        let settled = self.ask_and_serve(state).await;
        if settled.is_err() {
            self.memberships.clear();
        }
        settled
    }

    async fn ask_and_serve(&mut self, state: &State) -> Result<Vec<Granted>, Refused> {
        self.ask_again = None;
        let wanted = self.wanted.clone();
        let mut claims: Vec<_> = (0..)
            .zip(&wanted)
            .map(|(at, wish)| (wish, self.identify(at, wish)))
            .collect();
        let main = self.main.clone();
        self.admit(&main, &claims, state).await?;
        for at in 0..claims.len() {
            if let (_, Ok(identity)) = &claims[at]
                && identity.id != main.id
                && let Err(refused) = self.admit(&identity.clone(), &claims, state).await
            {
                claims[at].1 = Err(refused);
            }
        }
        self.enter(&mut claims, state)?;
        let claims: Vec<_> = claims
            .into_iter()
            .map(|(wish, identity)| Claim {
                wish,
                id: identity.map(|identity| identity.id),
            })
            .collect();
        let granted = grant(&state.names, &claims);
        self.serve(&claims, granted)
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

    /// Asks whether the key of `identity` may register for what is claimed in its name. One that may
    /// not loses its visits at once.
    async fn admit(
        &mut self,
        identity: &Identity,
        claims: &[(&Wanted, Result<Identity, Refused>)],
        state: &State,
    ) -> Result<(), Refused> {
        let id = identity.id;
        let own = claims
            .iter()
            .filter(|(_, claimed)| claimed.as_ref().is_ok_and(|claimed| claimed.id == id));
        let hosts = own.filter_map(|(wish, _)| hosts(&state.names, id, wish).ok());
        match decide(identity, hosts.flatten().collect(), state).await {
            Standing::Admitted => Ok(()),
            Standing::Refused(refused) => {
                if self.memberships.remove(&id).is_some() {
                    state.visits.end_agent(id, Code::Policy);
                }
                Err(refused)
            }
            Standing::Undecided if self.memberships.contains_key(&id) => {
                warn!("nobody decided in time whether the agent may stay; it stays for now");
                self.ask_again = Some(Instant::now() + state.timeouts.admission);
                Ok(())
            }
            Standing::Undecided => Err(Refused {
                code: Code::Refused.number(),
                text: "the relay could not find out in time whether to let this agent in"
                    .to_owned(),
                retry_after: Some(UNDECIDED_RETRY_MS),
            }),
        }
    }

    /// Makes the tunnel a member for each key that is claimed, and for no other.
    fn enter(
        &mut self,
        claims: &mut [(&Wanted, Result<Identity, Refused>)],
        state: &State,
    ) -> Result<(), Refused> {
        let claimed = |id| id == self.main.id || claims.iter().any(|(_, c)| is_of(c, id));
        self.memberships.retain(|id, _| claimed(*id));
        self.member(self.main.id, state).map_err(refusal)?;
        for (_, claimed) in claims {
            if let Ok(identity) = claimed
                && let Err(error) = self.member(identity.id, state)
            {
                *claimed = Err(refusal(error));
            }
        }
        Ok(())
    }

    fn member(&mut self, id: ClientId, state: &State) -> Result<(), JoinError> {
        if !self.memberships.contains_key(&id) {
            let membership = state.registry.enter(id, self.tunnel.clone(), self.place)?;
            self.memberships.insert(id, membership);
        }
        Ok(())
    }

    /// Lets visits come for what is granted, and for nothing else.
    fn serve(
        &mut self,
        claims: &[Claim<'_>],
        mut granted: Vec<Granted>,
    ) -> Result<Vec<Granted>, Refused> {
        for (id, membership) in &self.memberships {
            let grants = claims.iter().zip(&mut granted);
            let mut own = grants.filter(|(claim, _)| claim.id == Ok(*id));
            let served = own.find(|(_, granted)| matches!(granted.outcome, Outcome::Urls(_)));
            let Some((_, granted)) = served.filter(|_| self.leaves.is_none()) else {
                // As above.
                let _ = membership.serve(None);
                continue;
            };
            if let Err(error) = membership.serve(Some(granted.endpoint.clone())) {
                if *id == self.main.id {
                    return Err(refusal(error));
                }
                granted.outcome = Outcome::Refused(refusal(error));
            }
        }
        Ok(granted)
    }
}

fn is_of(claimed: &Result<Identity, Refused>, id: ClientId) -> bool {
    claimed.as_ref().is_ok_and(|claimed| claimed.id == id)
}

async fn decide(identity: &Identity, hosts: Vec<Hostname>, state: &State) -> Standing {
    let applicant = Applicant {
        id: identity.id,
        public_key: identity.public_key.clone(),
        extension: identity.extension.clone(),
        hosts,
    };
    let deciding = state.admission.decide(&applicant);
    match timeout(state.timeouts.admission, deciding).await {
        Ok(Verdict::Admitted) => Standing::Admitted,
        Ok(Verdict::Refused { text, retry_after }) => Standing::Refused(Refused {
            code: Code::Refused.number(),
            text,
            retry_after: retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }),
        Err(_) => Standing::Undecided,
    }
}

/// What an agent is told that may not join.
fn refusal(error: JoinError) -> Refused {
    let (code, retry_after) = match error {
        JoinError::LabelTaken => (Code::Policy, None),
        JoinError::Outdated => (Code::Replaced, Some(OUTDATED_RETRY_MS)),
    };
    Refused {
        code: code.number(),
        text: error.to_string(),
        retry_after,
    }
}
