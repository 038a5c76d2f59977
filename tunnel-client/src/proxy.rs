//! The proxy through which the agent reaches its relay, where nothing else leads out.
//!
//! * [`outbound`] - how a user writes it; [`credentials`] - what it is told about us;
//!   [`environment`] - the variables that name it where the user does not.
//! * `gateway` reaches it; `http_connect` and `socks5` ask it for a connection to a `target`; [`failure`]
//!   says why there is none.
//!
//! A proxy that is set is meant: whoever sets one has a network that wants its traffic there, or drops
//! it elsewhere. So nothing goes around it, no UDP packet, no TCP connection, and no question to the
//! resolver for the relay's name but by `socks5://`.

pub mod credentials;
pub mod environment;
pub mod failure;
pub(crate) mod gateway;
mod http_connect;
pub mod outbound;
mod socks5;
pub mod target;
