//! The agent: keeps a tunnel to each of its relays and serves the visitors that come through them.
//!
//! * [`config`] says what a user may choose; [`client`] runs it; [`status`] tells how it stands.
//! * `link` is the upkeep of the attachment to one relay: dial, serve, back off, for ever; [`proxy`]
//!   is what it may have to go through, and [`outward`] leads to whatever else is dialled. `links` keeps all of
//!   them, `standing` is what they come to.
//! * `visit` is one visitor: TLS ends here (`flights` gathers what it writes), or passes through ([`tls_mode`]);
//!   [`local`] dials the local service, the splice does the rest.
//! * `host` tells what happens to this host, which links must know: sleep, and other networks.
//! * [`endpoint`] is one public identity: key, id, certificates; `served` is where it is served.
//! * `certifying` keeps certificates for its names, of which `new_names` lets it begin so many in a day:
//!   `answers` are what authorities are shown, `announcements` are how relays know that they come.
//! * [`verify`] asks a public URL whether it is really the agent who answers there; `honesty` asks the agent's
//!   own ones now and then.

mod announcements;
mod answers;
mod certifying;
pub mod client;
pub mod config;
pub mod endpoint;
mod flights;
mod honesty;
mod host;
mod host_port;
pub mod link;
mod links;
pub mod local;
mod new_names;
pub mod outward;
pub mod proxy;
mod race;
pub mod relay_addr;
pub mod resolve;
mod served;
mod standing;
pub mod status;
mod tcp;
pub mod tls_mode;
pub mod verify;
mod visit;
