//! The visitors' side.

mod arrival;
pub(crate) mod listener;
mod refusal;
mod replay;
mod route;
pub(crate) mod visit;
