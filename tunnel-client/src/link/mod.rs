//! The upkeep of the attachment to one relay.

mod backoff;
mod control;
pub mod dial;
pub(crate) mod keeper;
pub mod relay_trust;
mod tunnel;
