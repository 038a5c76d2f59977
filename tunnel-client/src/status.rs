//! How an agent stands, for whoever shows it.

use std::collections::BTreeMap;

use tunnel_common::acme::state::CertificateState;
use tunnel_common::identity::{KeyFingerprint, Label};
use tunnel_common::wire::frame::EndpointRef;

/// How the agent stands. It is told anew at each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// No tunnel serves, and the agent works on it.
    #[default]
    Connecting,
    /// A tunnel to at least one relay serves.
    Serving(Vec<Published>),
}

/// An endpoint that visitors can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The agent's own name of it.
    pub name: EndpointRef,
    /// Its key, which visitors can pin.
    pub key: KeyFingerprint,
    /// Where visitors reach it, through all relays that serve it now, in the order of the relays.
    pub urls: Vec<String>,
    /// Those of them to show: the first of each relay.
    pub shown: Vec<String>,
    /// How its host names stand with their certificates, where any are to be ordered.
    pub certificates: BTreeMap<String, CertificateState>,
    /// Whether somebody with another key was seen to answer at one of these URLs, when the agent looked
    /// last. [`verify`](crate::verify::verify) tells at which.
    pub impersonated: bool,
}

impl Published {
    /// The id that visitors see in the URL.
    pub fn id(&self) -> Label {
        self.key.label()
    }
}
