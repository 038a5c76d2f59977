//! The visitors' side.

mod arrival;
pub(crate) mod listener;
mod refusal;
mod route;
mod visit;
