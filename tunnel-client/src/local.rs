//! The local service, and how to reach it.
//!
//! * [`service`] - how a user writes it; [`trust`] - how one that speaks TLS is known;
//!   [`proxy_protocol`] - what it may be told about a visitor.
//! * `dial` - a visit's connection to it.

pub(crate) mod dial;
pub mod proxy_protocol;
pub mod service;
pub mod trust;

pub use service::{BadLocalService, LocalService};
