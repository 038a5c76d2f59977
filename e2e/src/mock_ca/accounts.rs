//! Accounts (RFC 8555, 7.3): one for each key.

use serde_json::{Value, json};

use super::answer::{Answer, Problem, not_found, object, problem};
use super::jws::{Jws, Signer};
use super::state::{Account, State};

/// newAccount: the account of this key, which is made if there is none.
pub(super) fn create(state: &mut State, jws: &Jws) -> Result<Answer, Problem> {
    let Signer::Key(key) = &jws.signer else {
        return Err(problem("malformed", "newAccount needs a jwk"));
    };
    let payload = jws.payload.clone().unwrap_or_default();
    if let Some(id) = state.accounts.iter().position(|known| known.key == *key) {
        return show(state, id);
    }
    if payload["onlyReturnExisting"] == true {
        return Err(problem("accountDoesNotExist", "no account has this key"));
    }
    state.accounts.push(Account {
        key: key.clone(),
        contact: contact(&payload).unwrap_or_default(),
    });
    Ok(show(state, state.accounts.len() - 1)?.created())
}

/// A request to the account itself: it is shown, with what the client has changed.
pub(super) fn update(state: &mut State, jws: &Jws, id: usize) -> Result<Answer, Problem> {
    let given = jws.payload.as_ref().and_then(contact);
    if let (Some(account), Some(given)) = (state.accounts.get_mut(id), given) {
        account.contact = given;
    }
    show(state, id)
}

/// Whether the signer has an account.
pub(super) fn knows(state: &State, signer: &Signer) -> Result<(), Problem> {
    let Signer::Account(url) = signer else {
        return Err(problem("malformed", "only newAccount takes a jwk"));
    };
    let mut ids = 0..state.accounts.len();
    if ids.any(|id| self::url(state, id) == *url) {
        return Ok(());
    }
    Err(problem("accountDoesNotExist", format!("there is no {url}")))
}

fn show(state: &State, id: usize) -> Result<Answer, Problem> {
    let url = url(state, id);
    let account = state.accounts.get(id).ok_or_else(|| not_found(&url))?;
    let shown = json!({ "status": "valid", "contact": account.contact });
    Ok(object(&shown).of(url))
}

fn url(state: &State, id: usize) -> String {
    format!("{}/account/{id}", state.base)
}

fn contact(payload: &Value) -> Option<Vec<String>> {
    let given = payload["contact"].as_array()?.iter();
    Some(given.filter_map(Value::as_str).map(str::to_owned).collect())
}
