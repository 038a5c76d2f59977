//! The agent: keeps a tunnel to a relay and serves the visitors that come through it.
//!
//! * [`config`] says what a user may choose; [`client`] runs it; [`status`] tells how it stands.
//! * `link` is the upkeep of the attachment to one relay: dial, serve, back off, for ever; [`proxy`]
//!   is what it may have to go through.
//! * `visit` is one visitor: TLS ends here, or passes through ([`tls_mode`]); [`local`] dials the
//!   local service, the splice does the rest.
//! * [`endpoint`] is one public identity: key, id, certificate.

pub mod ca_file;
pub mod client;
pub mod config;
pub mod endpoint;
mod host_port;
pub mod link;
pub mod local;
pub mod proxy;
mod race;
pub mod relay_addr;
pub mod resolve;
pub mod status;
pub mod tls_mode;
mod visit;
