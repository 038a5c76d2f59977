//! The protocol names of tunnels.

/// ALPN of a QUIC tunnel. The number is the version of the framing: it changes only when an old
/// peer could not parse what a new one sends.
pub const QUIC: &[u8] = b"qtun/1";
