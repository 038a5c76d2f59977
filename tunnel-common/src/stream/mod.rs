//! One visit's bytes inside a tunnel.

#[cfg(feature = "tunnel")]
pub mod control;
#[cfg(feature = "tunnel")]
pub mod h2;
pub mod header;
#[cfg(feature = "tunnel")]
pub mod quic;
#[cfg(feature = "tunnel")]
pub mod tunnel;
