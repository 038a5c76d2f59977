//! What an agent wishes for, each with the key in whose name it does: small questions about such lists.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::frame::{Refused, Wanted};

use super::grant::hosts;
use super::identity::Identity;
use crate::names::Names;

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

/// The names that are claimed for `id`.
pub(super) fn hosts_of(id: ClientId, claims: &[Claimed], names: &Names) -> Vec<Hostname> {
    let own = claims.iter().filter(|(_, claimed)| is_of(claimed, id));
    own.filter_map(|(wish, _)| hosts(names, id, wish).ok())
        .flatten()
        .collect()
}
