//! The harness of the end-to-end stories: real relays, agents, visitors and origins on loopback.
//!
//! ```text
//! visitor ──TCP──▶ relay ──QUIC or HTTP/2──▶ agent ──TCP──▶ origin
//! ```
//!
//! * [`relay`] and [`agent`] run the libraries in this process, [`process`] the binaries beside it;
//!   [`pair`] reads what these say on standard output; [`published`] is what curl sees of them.
//! * [`transport`] is what the tunnel between the two is made of, a parameter of most stories.
//! * [`visitor`] speaks TLS, or whatever bytes a story wants, to the public port; [`hello`] makes
//!   ClientHellos, and cuts them anew.
//! * [`origin`] is the local service: echo, HTTP, or a closure. [`stage`] sets all up for a story
//!   that plays the local service itself.
//! * [`held`] is one whose answers wait for the story, and [`two_relays`] share a name.
//! * [`peer`] is an agent made by hand, [`false_relay`] a relay, for what real ones would never do;
//!   [`arrival`] is a visit to such an agent.
//! * [`stranger`] is an agent on other TLS, QUIC and HTTP/2 stacks than ours; [`steady`] is a
//!   bystander whom nothing that others do may hurt.
//! * [`porter`] decides which agents may come in. [`ports`] are known before they are bound, [`tools`] are programs of others, [`nginx`] is one
//!   as a local service, [`haproxy`] one before the public port, [`forward_proxy`] one before an agent.
//! * [`firewall`] stands between an agent and its relay, and swallows UDP when it is told to.
//! * [`certified`] is an agent that gets its certificates from an authority.
//! * [`front`] is a port before a relay that is known first, as [`pebble`] must be told where to look.
//! * [`pebble`] is an ACME server, [`mock_ca`] one for what that lacks; [`authority`] is one of a story's
//!   own, which vouches for relays and servers.
//! * `netsim` (Linux) is a bad network: two namespaces, and a line between them with delay, loss,
//!   rate, black holes and a NAT.
//! * [`poll`] waits for what no event announces; [`panics`] counts those that a runtime swallows;
//!   [`log`] is what the libraries say.
//! * [`bars`] and [`pages`] are for what measures: a chart, and where it is kept.
//!
//! Every port is 0, nothing sleeps to be in time, and everything ends when it is dropped.

pub mod agent;
pub mod arrival;
pub mod authority;
pub mod bars;
pub mod certified;
pub mod false_relay;
pub mod firewall;
pub mod forward_proxy;
pub mod front;
pub mod haproxy;
pub mod held;
pub mod hello;
pub mod log;
pub mod mock_ca;
#[cfg(target_os = "linux")]
pub mod netsim;
pub mod nginx;
pub mod origin;
pub mod pages;
pub mod pair;
pub mod panics;
pub mod pebble;
pub mod peer;
pub mod poll;
pub mod porter;
pub mod ports;
pub mod process;
pub mod published;
pub mod relay;
pub mod stage;
pub mod steady;
pub mod stranger;
pub mod tools;
pub mod transport;
pub mod two_relays;
pub mod visitor;
