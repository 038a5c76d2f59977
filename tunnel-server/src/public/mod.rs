//! The visitors' side.

mod arrival;
pub(crate) mod listener;
pub(crate) mod refusal;
pub(crate) mod replay;
mod route;
pub(crate) mod visit;
