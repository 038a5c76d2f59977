//! The agents' side.

pub(crate) mod acceptor;
mod asking;
pub(crate) mod bind;
mod challenges;
mod claims;
mod connection;
mod control;
mod error;
mod grant;
pub(crate) mod h2;
mod held;
pub(crate) mod identity;
mod mouth;
pub(crate) mod open;
mod presence;
mod quic;
pub(crate) mod registry;
pub(crate) mod right;
mod session;
pub(crate) mod tunnel;
pub(crate) mod turns;
