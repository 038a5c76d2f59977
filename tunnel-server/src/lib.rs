//! The relay: lets agents in, and passes visitors to them without reading what they say.
//!
//! * [`config`] says what an operator may choose, [`server`] binds it and runs it.
//! * [`admission`] decides which agents are let in.
//! * [`public`] is the visitors' side: accept, read the ClientHello, route, splice.
//! * `agent` is the agents' side: QUIC handshake, identity, control stream, registry.
//! * [`cert`] is the relay's own certificate as it signs it itself; [`acme`] says what an authority is to
//!   sign, and `certification` sees to it.
//! * `drain` is how the relay ends, and `admin` tells load balancers of it.
//! * [`names`] decides which host names are ours; `visits` is the table of all live visits; `state`
//!   is what the two sides share; [`proxies`] are believed when they say who a visitor is;
//!   [`reset_keys`] let agents know at once that a relay has crashed.

pub mod acme;
mod admin;
pub mod admission;
mod agent;
pub mod cert;
mod certification;
pub mod config;
mod drain;
mod log_limit;
pub mod names;
pub mod proxies;
pub mod public;
pub mod reset_keys;
pub mod server;
mod state;
mod visits;
