//! The question who may register, as one tunnel asks it: for all its keys at once, under one deadline.

use futures_util::future::join_all;
use tokio::time::timeout;
use tunnel_common::escape::Escaped;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::Refused;

use super::claims::Claimed;
use crate::admission::{Applicant, Verdict};
use crate::state::State;

/// When an agent may come again about which nobody could decide in time.
const UNDECIDED_RETRY_MS: u64 = 5_000;

/// What is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// The revision of the wishes.
    pub(super) rev: u64,
    /// The wishes.
    pub(super) claims: Vec<Claimed>,
    /// Each key once, with the names that it is about.
    pub(super) applicants: Vec<Applicant>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The question's own.
    pub(super) rev: u64,
    /// The question's own.
    pub(super) claims: Vec<Claimed>,
    /// For each key, the names that it was asked about, and what was decided.
    pub(super) decisions: Vec<(ClientId, Vec<Hostname>, Decision)>,
}

/// What was decided about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admitted,
    Refused(Refused),
    /// Nobody said in time.
    Undecided,
}

/// Asks. Takes no longer than [`Timeouts::admission`](crate::config::Timeouts::admission). Cancel
/// safe: a question that is dropped was not asked.
pub(super) async fn ask(question: Question, state: &State) -> Answer {
    let Question {
        rev,
        claims,
        applicants,
    } = question;
    let decisions = join_all(applicants.into_iter().map(async |applicant| {
        let decision = decide(&applicant, state).await;
        (applicant.id, applicant.hosts, decision)
    }));
    Answer {
        rev,
        claims,
        decisions: decisions.await,
    }
}

async fn decide(applicant: &Applicant, state: &State) -> Decision {
    let deciding = state.admission.decide(applicant);
    match timeout(state.timeouts.admission, deciding).await {
        Ok(Verdict::Admitted) => Decision::Admitted,
        Ok(Verdict::Refused { text, retry_after }) => Decision::Refused(Refused {
            code: Code::Refused.number(),
            // Whoever decides may quote the agent, and may quote at length.
            text: Escaped(&text).to_string(),
            retry_after: retry_after
                .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }),
        Err(_) => Decision::Undecided,
    }
}

/// What an agent is told about which nobody decided.
pub(super) fn undecided() -> Refused {
    Refused {
        code: Code::Refused.number(),
        text: "the relay could not find out in time whether to let this agent in".to_owned(),
        retry_after: Some(UNDECIDED_RETRY_MS),
    }
}
