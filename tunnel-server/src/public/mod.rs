//! The visitors' side.

mod arrival;
pub(crate) mod challenge;
mod course;
mod delivery;
pub(crate) mod listener;
mod patience;
pub(crate) mod refusal;
pub(crate) mod replay;
pub mod route;
pub(crate) mod visit;
