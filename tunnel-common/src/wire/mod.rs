//! The protocol between agent and relay: names, control frames, codes.
//!
//! Over QUIC the agent dials, both sides prove their keys by TLS 1.3, the agent opens one
//! bidirectional stream for [`frame`]s carried by [`control`], and the relay opens one stream for
//! each visit, which begins with a [`header`](crate::stream::header).

pub mod alpn;
pub mod code;
pub mod control;
pub mod frame;
#[cfg(feature = "tunnel")]
mod quic;
