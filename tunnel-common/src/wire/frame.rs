//! The control frames: what agent and relay tell each other beside the visits.
//!
//! JSON objects with a `type`. Fields and types that a peer does not know are ignored, so both may
//! grow; what an old peer could not parse needs a new ALPN instead.
//!
//! ```text
//! agent                                     relay
//!   │ Hello{instance, epoch, wanted …}        │   within 5 s of the handshake
//!   │ ───────────────────────────────────────▶│
//!   │      Welcome{granted …} | Refused{…}    │
//!   │◀─────────────────────────────────────── │
//!   │ Wanted{rev} ───────▶ ◀─────── Granted   │   again at any time, either side
//!   │ ChallengePending{host, until} ─────────▶│   before a certificate is asked for, and after
//!   │ Ping ◀────────────────────────────▶ Pong│
//!   │ Leaving / Draining                      │   before an end that was asked for
//! ```
//!
//! Frames are heard in order: the Pong to a Ping means that all that was said before the Ping was heard.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::code::Code;

/// One message on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum Frame {
    /// The agent's first frame.
    Hello(Hello),
    /// The relay's answer: the tunnel serves.
    Welcome(Welcome),
    /// The relay's other answer, after which it closes.
    Refused(Refused),
    /// The agent's wishes, anew.
    Wanted {
        /// Counts up with every change of the wishes.
        rev: u64,
        /// All endpoints that the agent wants from now on.
        wanted: Vec<Wanted>,
    },
    /// A certificate authority will ask at this host (TLS-ALPN-01, RFC 8737), and the agent can answer over
    /// this tunnel: the relay sends handshakes that offer nothing but `acme-tls/1` to tunnels that say so,
    /// and to no others. A Ping behind it tells when it counts. A host that is not the agent's, or one
    /// too many, is ignored; the tunnel's end withdraws all.
    ChallengePending {
        /// The name that is to be validated.
        host: String,
        /// Milliseconds from now for which it counts, up to 10 min; 0 withdraws it.
        until: u64,
    },
    /// The relay's grants, anew: an answer to [`Frame::Wanted`], or a change of its own.
    Granted {
        /// The `rev` of the wishes that this answers.
        rev: u64,
        /// What became of each wish.
        granted: Vec<Granted>,
    },
    /// "Are you there?"
    Ping {
        /// Comes back in the [`Frame::Pong`].
        nonce: u64,
    },
    /// The answer to a [`Frame::Ping`].
    Pong {
        /// The ping's own.
        nonce: u64,
    },
    /// The sender will stop; the agent should connect elsewhere.
    Draining {
        /// Milliseconds over which agents should spread their reconnecting.
        spread: u64,
    },
    /// The sender goes now: no new visits on this tunnel, and those that wait for nothing should end. An
    /// agent sees which these are, and ends their TLS as well.
    Leaving,
    /// A type of frame that this version does not know.
    #[serde(other)]
    Unknown,
}

/// Who dials, and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Tells processes of one key apart, and the links of one process: each counts its own epochs.
    pub instance: Instance,
    /// Counts the reconnects of that process: within an instance the higher one replaces.
    pub epoch: u64,
    /// Which of the parallel connections of this tunnel this is, from 0.
    #[serde(default)]
    pub slot: u16,
    /// How many parallel connections there are.
    #[serde(default = "one")]
    pub slots: u16,
    /// For logs.
    #[serde(default)]
    pub agent_version: String,
    /// What the agent can do beyond this version's minimum.
    #[serde(default)]
    pub features: Vec<String>,
    /// The revision of `wanted`.
    #[serde(default)]
    pub rev: u64,
    /// The endpoints to publish.
    pub wanted: Vec<Wanted>,
}

fn one() -> u16 {
    1
}

/// An endpoint that the agent wants to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The agent's own name of it.
    #[serde(rename = "ref")]
    pub endpoint: EndpointRef,
    /// What visitors reach it by.
    pub kind: EndpointKind,
    /// The host name that it wants; without one, those that follow from its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The public port that it wants, for kinds that have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The key that the endpoint is named after, if it is not the one that the handshake proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Whether this process would order certificates for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orders: bool,
}

/// A certificate, and a signature by its key that is good for one connection; see `proof`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The certificate in DER, in base64: the envelope of the key, as in the handshake.
    pub certificate: String,
    /// The signature, in base64.
    pub signature: String,
}

/// What visitors reach an endpoint by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EndpointKind {
    /// TLS on the shared public ports, routed by server name.
    Https,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The relay takes the agent in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The relay's own name: the fingerprint of its key.
    pub relay_id: String,
    /// The features of [`Hello::features`] that are in force.
    #[serde(default)]
    pub features: Vec<String>,
    /// What the agent should stay within.
    #[serde(default)]
    pub limits: Limits,
    /// The port of the URLs.
    pub public_port: u16,
    /// The port on which certificate authorities validate, when the relay has it.
    pub alpn_port: Option<u16>,
    /// Other relays that serve the same names.
    #[serde(default)]
    pub alternates: Vec<String>,
    /// The revision of the wishes that `granted` answers.
    #[serde(default)]
    pub rev: u64,
    /// What became of each wish.
    pub granted: Vec<Granted>,
}

/// What the relay asks the agent to stay within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Endpoints in one list of wishes.
    #[serde(default)]
    pub endpoints: u16,
}

/// What became of one wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The wish's own.
    #[serde(rename = "ref")]
    pub endpoint: EndpointRef,
    /// Of the processes that serve the endpoint's key, this is the one that orders its certificates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leads: bool,
    /// The grant itself.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A grant or a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Visitors reach the endpoint at these URLs; the first is the one to show.
    Urls(Vec<String>),
    /// It is not published.
    Refused(Refused),
}

/// No, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For machines; see [`Code`].
    pub code: u32,
    /// For people: what is wrong, and what to do.
    pub text: String,
    /// When to try again, in milliseconds. Without it trying again is of no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Refused {
    /// A refusal that stands until somebody changes something.
    pub fn for_good(code: Code, text: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            text: text.into(),
            retry_after: None,
        }
    }
}

/// Bytes in the longest [`EndpointRef`].
pub const MAX_REF_BYTES: usize = 64;

/// The agent's own short name of an endpoint: 1 to [`MAX_REF_BYTES`] of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointRef(String);

/// Why a text is no [`EndpointRef`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("an endpoint's ref is 1 to 64 of a-z, 0-9 and '-'")]
pub struct BadRef;

impl EndpointRef {
    /// The name of an agent's second endpoint; the default is that of the first.
    pub fn secondary() -> Self {
        Self("secondary".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EndpointRef {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl TryFrom<String> for EndpointRef {
    type Error = BadRef;

    fn try_from(text: String) -> Result<Self, BadRef> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=MAX_REF_BYTES).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err(BadRef)
        }
    }
}

impl From<EndpointRef> for String {
    fn from(name: EndpointRef) -> Self {
        name.0
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// 16 random bytes that each link of an agent's process draws at its start; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Instance([u8; 16]);

/// Why a text is no [`Instance`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("an instance is 32 hexadecimal digits")]
pub struct BadInstance;

impl Instance {
    /// The instance of these bytes, which must be random.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for Instance {
    type Error = BadInstance;

    fn try_from(text: String) -> Result<Self, BadInstance> {
        let bytes = data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| BadInstance)?;
        bytes.try_into().map(Self).map_err(|_| BadInstance)
    }
}

impl From<Instance> for String {
    fn from(instance: Instance) -> Self {
        data_encoding::HEXLOWER.encode(&instance.0)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Frame, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// What an older or newer peer relies on, letter by letter.
    #[test]
    fn the_wire_form_of_a_hello_is_fixed() {
        let hello = Frame::Hello(Hello {
            instance: Instance::new([7; 16]),
            epoch: 3,
            slot: 0,
            slots: 1,
            agent_version: "0.1.0".into(),
            features: vec![],
            rev: 1,
            wanted: vec![Wanted {
                endpoint: EndpointRef::default(),
                kind: EndpointKind::Https,
                host: None,
                port: None,
                proof: None,
                orders: false,
            }],
        });
        let json = r#"{"type":"Hello","instance":"07070707070707070707070707070707","epoch":3,"slot":0,"slots":1,"agent_version":"0.1.0","features":[],"rev":1,"wanted":[{"ref":"main","kind":"https"}]}"#;
        assert_eq!(serde_json::to_string(&hello).expect("serialises"), json);
        assert_eq!(parse(json).expect("parses"), hello);
    }

    #[test]
    fn a_wish_says_that_certificates_would_be_ordered_and_else_nothing_about_them() {
        let json = r#"{"ref":"main","kind":"https"}"#;
        let mut wish: Wanted = serde_json::from_str(json).expect("parses");
        assert!(!wish.orders);
        wish.orders = true;
        let json = r#"{"ref":"main","kind":"https","orders":true}"#;
        assert_eq!(serde_json::to_string(&wish).expect("serialises"), json);
        assert_eq!(serde_json::from_str::<Wanted>(json).expect("parses"), wish);
    }

    #[test]
    fn a_grant_has_either_urls_or_a_refusal() {
        let granted = Granted {
            endpoint: EndpointRef::default(),
            leads: false,
            outcome: Outcome::Urls(vec!["https://x.example".into()]),
        };
        let json = r#"{"ref":"main","urls":["https://x.example"]}"#;
        assert_eq!(serde_json::to_string(&granted).expect("serialises"), json);
        let refused = r#"{"ref":"main","refused":{"code":6,"text":"no"}}"#;
        let parsed: Granted = serde_json::from_str(refused).expect("parses");
        assert_eq!(
            parsed.outcome,
            Outcome::Refused(Refused::for_good(Code::Policy, "no"))
        );
        assert_eq!(serde_json::to_string(&parsed).expect("serialises"), refused);
    }

    #[test]
    fn a_grant_says_who_leads_only_to_him() {
        let leads = r#"{"ref":"main","leads":true,"urls":["https://x.example"]}"#;
        let granted: Granted = serde_json::from_str(leads).expect("parses");
        assert!(granted.leads);
        assert_eq!(serde_json::to_string(&granted).expect("serialises"), leads);
        let silent = r#"{"ref":"main","urls":[]}"#;
        let granted: Granted = serde_json::from_str(silent).expect("parses");
        assert!(!granted.leads);
    }

    #[test]
    fn the_wire_form_of_a_pending_challenge_is_fixed() {
        let pending = Frame::ChallengePending {
            host: "x.example".into(),
            until: 60_000,
        };
        let json = r#"{"type":"ChallengePending","host":"x.example","until":60000}"#;
        assert_eq!(serde_json::to_string(&pending).expect("serialises"), json);
        assert_eq!(parse(json).expect("parses"), pending);
    }

    #[test]
    fn what_a_newer_peer_adds_is_ignored() {
        assert_eq!(
            parse(r#"{"type":"Ping","nonce":5,"colour":"red"}"#).expect("parses"),
            Frame::Ping { nonce: 5 }
        );
        assert_eq!(
            parse(r#"{"type":"Stats","visits":{"now":3}}"#).expect("parses"),
            Frame::Unknown
        );
        let kind: EndpointKind = serde_json::from_str(r#""quantum""#).expect("parses");
        assert_eq!(kind, EndpointKind::Unknown);
    }

    #[test]
    fn what_is_wrong_is_not_taken() {
        assert!(parse(r#"{"nonce":5}"#).is_err());
        assert!(parse(r#"{"type":"Ping"}"#).is_err());
        for bad in ["", "Main", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert_eq!(
                EndpointRef::try_from(bad.to_owned()),
                Err(BadRef),
                "{bad:?}"
            );
        }
        assert!(EndpointRef::try_from("a".repeat(64)).is_ok());
        for bad in ["", "07", "0707070707070707070707070707070Z"] {
            assert_eq!(
                Instance::try_from(bad.to_owned()),
                Err(BadInstance),
                "{bad:?}"
            );
        }
    }
}
