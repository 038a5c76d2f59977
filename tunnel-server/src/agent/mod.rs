//! The agents' side.

pub(crate) mod acceptor;
pub(crate) mod bind;
mod connection;
mod control;
mod error;
mod grant;
pub(crate) mod h2;
pub(crate) mod identity;
pub(crate) mod open;
mod presence;
mod quic;
pub(crate) mod registry;
mod session;
pub(crate) mod tunnel;
