//! One visit's bytes inside a tunnel.

pub mod header;
pub mod quic;
