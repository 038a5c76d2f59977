//! Orders, authorizations and challenges (RFC 8555, 7.4 and 7.5).
//!
//! ```text
//! pending ──all challenges won──▶ ready ──finalize──▶ valid
//!    └──a challenge lost──▶ invalid
//! ```

use serde_json::{Value, json};

use super::answer::{Answer, Problem, chain, not_found, object, problem};
use super::issue;
use super::jws::{Jws, decode, text};
use super::seen::SeenOrder;
use super::state::{Authorization, Challenge, Order, State};

/// newOrder.
pub(super) fn create(state: &mut State, jws: &Jws) -> Result<Answer, Problem> {
    if let Some(limit) = &state.rules.refuse_orders {
        let refusal = problem("rateLimited", limit.detail.clone());
        return Err(refusal.retry_after(limit.retry_after));
    }
    let payload = jws.payload.clone().unwrap_or_default();
    let hosts = hosts(&payload)?;
    let named = |name: &str| payload[name].as_str().map(str::to_owned);
    let (profile, replaces) = (named("profile"), named("replaces"));
    if let Some(profile) = &profile
        && !state.rules.profiles.contains(&profile.as_str())
    {
        return Err(problem("invalidProfile", format!("no profile {profile}")));
    }
    let authorizations = hosts.iter().map(|host| Authorization {
        host: host.clone(),
        token: format!("{:032x}", fastrand::u128(..)),
        challenge: Challenge::Pending,
    });
    state.orders.push(Order {
        authorizations: authorizations.collect(),
        profile: profile.clone(),
        replaces: replaces.clone(),
        chain: None,
    });
    let at = state.now();
    state.seen_orders.push(SeenOrder {
        hosts,
        profile,
        replaces,
        at,
    });
    Ok(show(state, state.orders.len() - 1)?.created())
}

fn hosts(payload: &Value) -> Result<Vec<String>, Problem> {
    let identifiers = payload["identifiers"].as_array();
    let identifiers = identifiers.filter(|list| !list.is_empty());
    let identifiers = identifiers.ok_or_else(|| problem("malformed", "no identifiers"))?;
    let host = |identifier: &Value| match text(identifier, "type")? {
        "dns" => Ok(text(identifier, "value")?.to_owned()),
        other => Err(problem("unsupportedIdentifier", format!("no {other}"))),
    };
    identifiers.iter().map(host).collect()
}

/// An order as it stands.
pub(super) fn show(state: &State, id: usize) -> Result<Answer, Problem> {
    let order = order(state, id)?;
    let identifier = |each: &Authorization| json!({ "type": "dns", "value": each.host });
    let identifiers: Vec<_> = order.authorizations.iter().map(identifier).collect();
    let all = 0..identifiers.len();
    let authorizations: Vec<_> = all.map(|n| url(state, "authorization", id, n)).collect();
    let status = order.status();
    let mut shown = json!({
        "status": status,
        "expires": state.expires(),
        "identifiers": identifiers,
        "authorizations": authorizations,
        "finalize": format!("{}/finalize/{id}", state.base),
    });
    let echoed = [("profile", &order.profile), ("replaces", &order.replaces)];
    for (name, value) in echoed {
        if let Some(value) = value {
            shown[name] = json!(value);
        }
    }
    match status {
        "valid" => shown["certificate"] = json!(format!("{}/certificate/{id}", state.base)),
        "invalid" => shown["error"] = lost().document(),
        _ => {}
    }
    Ok(object(&shown).of(format!("{}/order/{id}", state.base)))
}

/// An authorization as it stands.
pub(super) fn authorization(state: &State, id: usize, index: usize) -> Result<Answer, Problem> {
    let authorization = authorized(&order(state, id)?.authorizations, index)?;
    Ok(object(&json!({
        "status": authorization.challenge.status(),
        "expires": state.expires(),
        "identifier": { "type": "dns", "value": authorization.host },
        "challenges": [challenge(state, id, index, authorization)],
    })))
}

fn challenge(state: &State, id: usize, index: usize, of: &Authorization) -> Value {
    let mut shown = json!({
        "type": "tls-alpn-01",
        "url": url(state, "challenge", id, index),
        "token": of.token,
        "status": of.challenge.status(),
    });
    if of.challenge == Challenge::Lost {
        shown["error"] = lost().document();
    }
    shown
}

/// A request to a challenge: with a payload the client says that it is ready to be looked at.
pub(super) fn attempt(
    state: &mut State,
    jws: &Jws,
    id: usize,
    index: usize,
) -> Result<Answer, Problem> {
    let authorization = authorized(&order(state, id)?.authorizations, index)?;
    // As it stood before: real authorities look later, and tell the outcome to the next request.
    let shown = object(&challenge(state, id, index, authorization));
    let fails = state.rules.fail_validation;
    let challenge = &mut state.orders[id].authorizations[index].challenge;
    if jws.payload.is_some() && *challenge == Challenge::Pending {
        *challenge = if fails {
            Challenge::Lost
        } else {
            Challenge::Won
        };
    }
    Ok(shown)
}

/// finalize.
pub(super) fn finalize(state: &mut State, jws: &Jws, id: usize) -> Result<Answer, Problem> {
    let order = order(state, id)?;
    if order.status() != "ready" {
        let detail = format!("the order is {}", order.status());
        return Err(problem("orderNotReady", detail));
    }
    let hosts = order.authorizations.iter().map(|each| each.host.clone());
    let hosts: Vec<String> = hosts.collect();
    let csr = decode(text(jws.payload.as_ref().unwrap_or(&Value::Null), "csr")?)?;
    let chain = issue::issue(state, &csr, &hosts)?;
    state.orders[id].chain = Some(chain);
    show(state, id)
}

/// The chain that was issued.
pub(super) fn certificate(state: &State, id: usize) -> Result<Answer, Problem> {
    match &order(state, id)?.chain {
        Some(pem) => Ok(chain(pem.clone())),
        None => Err(not_found("certificate yet")),
    }
}

fn order(state: &State, id: usize) -> Result<&Order, Problem> {
    state.orders.get(id).ok_or_else(|| not_found("such order"))
}

fn authorized(all: &[Authorization], index: usize) -> Result<&Authorization, Problem> {
    all.get(index)
        .ok_or_else(|| not_found("such authorization"))
}

fn url(state: &State, what: &str, id: usize, index: usize) -> String {
    format!("{}/{what}/{id}/{index}", state.base)
}

fn lost() -> Problem {
    problem("unauthorized", "the host showed no proof")
}

impl Order {
    fn status(&self) -> &'static str {
        let mut challenges = self.authorizations.iter().map(|each| each.challenge);
        if self.chain.is_some() {
            "valid"
        } else if challenges.clone().any(|each| each == Challenge::Lost) {
            "invalid"
        } else if challenges.all(|each| each == Challenge::Won) {
            "ready"
        } else {
            "pending"
        }
    }
}

impl Challenge {
    fn status(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Won => "valid",
            Self::Lost => "invalid",
        }
    }
}
