//! The harness of the end-to-end stories: real relays, agents, visitors and origins on loopback.
//!
//! ```text
//! visitor ──TCP──▶ relay ──QUIC──▶ agent ──TCP──▶ origin
//! ```
//!
//! * [`relay`] and [`agent`] run the libraries in this process, [`process`] the binaries beside it.
//! * [`pair`] reads what `server` and `client` say on standard output.
//! * [`visitor`] speaks TLS, or whatever bytes a story wants, to the public port.
//! * [`origin`] is the local service: echo, HTTP, or a closure.
//! * [`peer`] is an agent made by hand, for what a real one would never do; [`arrival`] a visit
//!   to it.
//! * [`hello`] makes ClientHellos, and cuts them anew.
//! * [`ports`] are known before they are bound, [`tools`] are programs of others, [`nginx`] is a
//!   local service.
//! * [`poll`] waits for what no event announces.
//!
//! Every port is 0, nothing sleeps to be in time, and everything ends when it is dropped.

pub mod agent;
pub mod arrival;
pub mod hello;
pub mod nginx;
pub mod origin;
pub mod pair;
pub mod peer;
pub mod poll;
pub mod ports;
pub mod process;
pub mod relay;
pub mod tools;
pub mod visitor;
