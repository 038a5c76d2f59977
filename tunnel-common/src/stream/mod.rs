//! One visit's bytes inside a tunnel.

pub mod control;
pub mod h2;
pub mod header;
pub mod quic;
pub mod tunnel;
