//! One request and its answer: the directory, and who is asked for what.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::answer::{Answer, Problem, not_found, nothing, object, problem};
use super::jws::{self, Jws, Signer};
use super::rules::{CAA_IDENTITY, Garbled};
use super::seen::SeenRequest;
use super::state::State;
use super::{accounts, orders, renewal};

/// Answers one request, and remembers it.
pub(super) fn answer(
    state: &mut State,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Full<Bytes>> {
    let answer = route(state, method, path, body).unwrap_or_else(Answer::from);
    let response = answer.into_response(&state.new_nonce());
    let garbled = state
        .rules
        .garbled
        .filter(|garbled| path.split('/').nth(1) == Some(garbled.resource));
    let response = garbled.map_or(response, page);
    let at = state.now();
    state.seen_requests.push(SeenRequest {
        line: format!("{method} {path}"),
        status: response.status().as_u16(),
        at,
    });
    response
}

/// What a proxy says in place of the authority.
fn page(garbled: Garbled) -> Response<Full<Bytes>> {
    let mut page = Response::new(Full::from("<html>Please come again.</html>"));
    *page.status_mut() = StatusCode::from_u16(garbled.status).expect("a status");
    if let Some(retry_after) = garbled.retry_after {
        let seconds = retry_after.as_secs().into();
        page.headers_mut().insert(RETRY_AFTER, seconds);
    }
    page
}

fn route(state: &mut State, method: &Method, path: &str, body: &[u8]) -> Result<Answer, Problem> {
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    match (method.as_str(), &steps[..]) {
        ("GET", ["directory"]) => Ok(object(&directory(state))),
        ("GET" | "HEAD", ["new-nonce"]) => Ok(nothing()),
        ("GET", ["renewal-info", id]) => renewal::info(state, id),
        ("POST", steps) => {
            let jws = jws::read(body)?;
            admit(state, &jws, path)?;
            post(state, &jws, steps)
        }
        _ => Err(not_found(path)),
    }
}

/// What every POST must have (RFC 8555, 6).
fn admit(state: &mut State, jws: &Jws, path: &str) -> Result<(), Problem> {
    state.take_nonce(&jws.nonce)?;
    if jws.url != format!("{}{path}", state.base) {
        return Err(problem("unauthorized", format!("made for {}", jws.url)));
    }
    match (&jws.signer, path) {
        (Signer::Key(_), "/new-account") => Ok(()),
        (signer, _) => accounts::knows(state, signer),
    }
}

fn post(state: &mut State, jws: &Jws, steps: &[&str]) -> Result<Answer, Problem> {
    let number = |step: &str| step.parse::<usize>().map_err(|_| not_found(step));
    match steps {
        ["new-account"] => accounts::create(state, jws),
        ["account", id] => accounts::update(state, jws, number(id)?),
        ["new-order"] => orders::create(state, jws),
        ["order", id] => orders::show(state, number(id)?),
        ["authorization", id, index] => orders::authorization(state, number(id)?, number(index)?),
        ["challenge", id, index] => orders::attempt(state, jws, number(id)?, number(index)?),
        ["finalize", id] => orders::finalize(state, jws, number(id)?),
        ["certificate", id] => orders::certificate(state, number(id)?),
        other => Err(not_found(&other.join("/"))),
    }
}

fn directory(state: &State) -> Value {
    let at = |name: &str| format!("{}/{name}", state.base);
    let mut directory = json!({
        "newNonce": at("new-nonce"),
        "newAccount": at("new-account"),
        "newOrder": at("new-order"),
        "meta": { "caaIdentities": [CAA_IDENTITY] },
    });
    if !state.rules.profiles.is_empty() {
        let profiles = state.rules.profiles.iter();
        let described = profiles.map(|name| ((*name).to_owned(), json!(format!("called {name}"))));
        directory["meta"]["profiles"] = Value::Object(described.collect());
    }
    if state.rules.ari.is_some() {
        directory["renewalInfo"] = json!(at("renewal-info"));
    }
    directory
}
