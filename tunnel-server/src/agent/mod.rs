//! The agents' side.

pub(crate) mod acceptor;
mod control;
mod error;
mod grant;
pub(crate) mod identity;
pub(crate) mod open;
mod presence;
pub(crate) mod registry;
mod session;
pub(crate) mod tunnel;
