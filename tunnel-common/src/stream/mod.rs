//! One visit's bytes inside a tunnel.

pub mod h2;
pub mod header;
pub mod quic;
