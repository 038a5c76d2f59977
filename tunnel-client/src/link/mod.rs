//! The upkeep of the attachment to one relay.

mod backoff;
mod connection;
mod control;
pub(crate) mod dial;
pub mod dial_error;
mod grant;
mod h2;
pub(crate) mod keeper;
pub mod known_relays;
pub(crate) mod quic;
pub mod relay_trust;
mod tunnel;
pub mod verifier;
