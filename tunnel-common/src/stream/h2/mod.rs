//! Streams of an HTTP/2 tunnel.
//!
//! * [`connection`] - turns one TLS connection into streams: who opens, who accepts, who drives.
//! * [`stream`] - one visit's stream, an end of a splice.
//! * [`halves`] - the two halves of a stream apart, for control.
//! * `incoming`, `outgoing` - the two directions, with HTTP/2's flow control.
//! * `gathered`, `traffic`, `meter` - the bytes below: written together, counted, and never stuck.
//! * `leaving` - streams that nobody holds any more and that still have to say something.
//! * [`settings`] - what one end may set.
//! * `pulse`, `watch` - whether the peer is there, and how large the windows should be.
//! * [`fault`] - what a stream's user sees of an error.

pub mod connection;
pub mod fault;
mod gathered;
pub mod halves;
mod incoming;
mod leaving;
mod meter;
mod outgoing;
mod pulse;
pub mod settings;
pub mod stream;
mod traffic;
mod watch;

#[cfg(test)]
mod tests;
