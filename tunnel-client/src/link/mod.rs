//! The upkeep of the attachment to one relay.

mod backoff;
mod control;
pub mod dial;
mod grant;
pub(crate) mod keeper;
pub mod known_relays;
pub mod relay_trust;
mod tunnel;
pub mod verifier;
