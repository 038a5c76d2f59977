//! Renewal information (RFC 9773, 4).

use serde_json::json;

use super::answer::{Answer, Problem, not_found, object};
use super::rules::RetryAfter;
use super::state::{State, date};

/// The window for a certificate that was issued here.
pub(super) fn info(state: &State, id: &str) -> Result<Answer, Problem> {
    let ari = state
        .rules
        .ari
        .filter(|_| state.issued.iter().any(|issued| issued == id));
    let ari = ari.ok_or_else(|| not_found("renewal information for it"))?;
    let window = json!({ "start": date(ari.start), "end": date(ari.end) });
    let shown = json!({ "suggestedWindow": window });
    Ok(object(&shown).retry_after(RetryAfter::In(ari.retry_after)))
}
