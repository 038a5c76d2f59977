//! What the relay and the agent must agree on, or would otherwise both write.
//!
//! * [`wire`] - control frames, codes and protocol names: the part of the product that is costly to
//!   change.
//! * [`stream`] - one visit's bytes inside a tunnel: the header that opens it, the QUIC
//!   stream, the HTTP/2 stream.
//! * [`splice`] - the pump between two byte streams, and the buffers it borrows; [`budget`] - how
//!   much memory slow readers may pin.
//! * [`identity`], [`key`], [`hostname`], [`tls`], [`proof`] - who is who; [`private_file`] - what
//!   others may not touch.
//! * [`quic`], [`h2`] - sockets and transport settings that both ends share.
//! * [`clock`], [`escape`], [`process`] - the rim: wall-clock time, log text, limits and signals.
//!
//! Nothing here knows a relay or an agent: a thing stands in this crate only if both use it.

pub mod budget;
pub mod clock;
pub mod escape;
pub mod h2;
pub mod hostname;
pub mod identity;
pub mod key;
pub mod private_file;
pub mod process;
pub mod proof;
pub mod quic;
pub mod splice;
pub mod stream;
pub mod tls;
pub mod wire;
