//! What the relay and the agent must agree on, or would otherwise both write.
//!
//! * [`wire`] - control frames, codes and protocol names: the part of the product that is costly to
//!   change.
//! * [`stream`] - one visit's bytes inside a tunnel: the header that opens it, the QUIC
//!   stream, the HTTP/2 stream.
//! * [`splice`] - the pump between two byte streams, and the buffers it borrows; [`budget`] - how
//!   much memory slow readers may pin.
//! * [`identity`], [`key`], [`hostname`], [`tls`], [`proof`] - who is who; [`private_file`] - what
//!   others may not touch; [`file_watch`] - when somebody has replaced a file.
//! * [`acme`] - certificates from an authority; [`pem_pair`] - those that the user has brought;
//!   [`cert_store`] - how both are replaced while handshakes go on; [`ca_file`] - authorities that the user
//!   names.
//! * [`quic`], [`h2`] - sockets and transport settings that both ends share; [`coalesce`] - how what many
//!   visits write leaves together.
//! * [`clock`], [`escape`], [`process`] - the rim: wall-clock time, log text, limits and signals.
//!
//! Without the feature `tunnel`, which is on by default, only the parsers are left: names, identities,
//! the wire and the header of a stream. They need no TLS, and so can be fuzzed after a short build.
//!
//! Nothing here knows a relay or an agent: a thing stands in this crate only if both use it.

#[cfg(feature = "tunnel")]
pub mod acme;
#[cfg(feature = "tunnel")]
mod bbr;
#[cfg(feature = "tunnel")]
pub mod budget;
#[cfg(feature = "tunnel")]
pub mod ca_file;
#[cfg(feature = "tunnel")]
pub mod cert_store;
#[cfg(feature = "tunnel")]
pub mod clock;
#[cfg(feature = "tunnel")]
pub mod coalesce;
pub mod escape;
#[cfg(feature = "tunnel")]
pub mod file_watch;
#[cfg(feature = "tunnel")]
pub mod h2;
pub mod hostname;
pub mod identity;
#[cfg(feature = "tunnel")]
pub mod key;
#[cfg(feature = "tunnel")]
pub mod pem_pair;
#[cfg(feature = "tunnel")]
pub mod private_file;
#[cfg(feature = "tunnel")]
pub mod process;
#[cfg(feature = "tunnel")]
pub mod proof;
#[cfg(feature = "tunnel")]
pub mod quic;
#[cfg(feature = "tunnel")]
pub mod splice;
pub mod stream;
#[cfg(feature = "tunnel")]
pub mod tls;
pub mod wire;
