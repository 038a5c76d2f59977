//! What an agent wishes for, each with the key in whose name it does: small questions about such lists.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{Granted, Outcome, Refused, Wanted};

use super::grant::hosts;
use super::identity::Identity;
use super::registry::core::JoinError;
use crate::names::Names;

/// When a tunnel that came too late may come again, in milliseconds: its process knows more by then.
const OUTDATED_RETRY_MS: u64 = 5_000;
/// A wish, and the key in whose name it comes, or why there is none.
pub(super) type Claimed = (Wanted, Result<Identity, Refused>);

/// Whether this is claimed in the name of `id`.
pub(super) fn is_of(claimed: &Result<Identity, Refused>, id: ClientId) -> bool {
    claimed.as_ref().is_ok_and(|claimed| claimed.id == id)
}

/// All that is claimed in the name of `id` is refused.
pub(super) fn refuse(claims: &mut [Claimed], id: ClientId, refused: &Refused) {
    for (_, claimed) in claims {
        if is_of(claimed, id) {
            *claimed = Err(refused.clone());
        }
    }
}

/// The answer to wishes of which none is granted.
pub(super) fn refuse_all(wanted: &[Wanted], refused: &Refused) -> Vec<Granted> {
    let answer = |wish: &Wanted| Granted {
        endpoint: wish.endpoint.clone(),
        leads: false,
        outcome: Outcome::Refused(refused.clone()),
    };
    wanted.iter().map(answer).collect()
}

/// The names that are claimed for `id`.
pub(super) fn hosts_of(id: ClientId, claims: &[Claimed], names: &Names) -> Vec<Hostname> {
    let own = claims.iter().filter(|(_, claimed)| is_of(claimed, id));
    own.filter_map(|(wish, _)| hosts(names, id, wish).ok())
        .flatten()
        .collect()
}

/// What an agent is told that may not join.
pub(super) fn refusal(error: JoinError) -> Refused {
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
