//! The upkeep of the attachment to one relay.

mod backoff;
pub(crate) mod belief;
mod connection;
mod control;
pub(crate) mod dial;
pub mod dial_error;
mod draining;
mod farewell;
mod grant;
pub(crate) mod h2;
pub(crate) mod keeper;
pub mod known_relays;
mod lost;
mod movable;
pub(crate) mod policy;
mod pool;
mod pulse;
pub(crate) mod quic;
pub mod relay_trust;
mod route;
mod seek;
pub(crate) mod shared;
mod tunnel;
mod udp;
pub mod verifier;
