//! Requests as JWS in the flattened form (RFC 7515, 7.2.2; RFC 8555, 6.2). They are not verified.

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;

use super::answer::{Problem, problem};

/// The members of a key that make it what it is, for EC and for RSA (RFC 7638, 3.2).
const KEY_MEMBERS: [&str; 6] = ["kty", "crv", "x", "y", "n", "e"];

/// What a request says.
#[derive(Debug)]
pub(super) struct Jws {
    /// The URL that it was made for.
    pub(super) url: String,
    /// From an earlier answer.
    pub(super) nonce: String,
    /// Who says to have signed it.
    pub(super) signer: Signer,
    /// The object in it; `None` for a POST-as-GET.
    pub(super) payload: Option<Value>,
}

/// How a request names its account.
#[derive(Debug)]
pub(super) enum Signer {
    /// By its key, whose members are written one behind the other.
    Key(String),
    /// By its URL.
    Account(String),
}

/// Reads the body of a request.
pub(super) fn read(body: &[u8]) -> Result<Jws, Problem> {
    let body = parse(body)?;
    text(&body, "signature")?;
    let header = parse(&decode(text(&body, "protected")?)?)?;
    let payload = decode(text(&body, "payload")?)?;
    let payload = if payload.is_empty() {
        None
    } else {
        Some(parse(&payload)?)
    };
    let signer = match (header.get("jwk"), header.get("kid")) {
        (Some(key), None) => Signer::Key(identity(key)),
        (None, Some(Value::String(url))) => Signer::Account(url.clone()),
        _ => return Err(problem("malformed", "neither jwk nor kid")),
    };
    Ok(Jws {
        url: text(&header, "url")?.to_owned(),
        nonce: text(&header, "nonce")?.to_owned(),
        signer,
        payload,
    })
}

fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|error| problem("malformed", error.to_string()))
}

/// The text in a member.
pub(super) fn text<'a>(object: &'a Value, name: &str) -> Result<&'a str, Problem> {
    let text = object.get(name).and_then(Value::as_str);
    text.ok_or_else(|| problem("malformed", format!("no {name}")))
}

/// The bytes in a base64url text.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    let decoded = BASE64URL_NOPAD.decode(text.as_bytes());
    decoded.map_err(|error| problem("malformed", error.to_string()))
}

fn identity(key: &Value) -> String {
    let members = KEY_MEMBERS.iter().filter_map(|name| key[name].as_str());
    members.collect::<Vec<_>>().join(" ")
}
