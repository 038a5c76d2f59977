//! What the user of a stream sees when it breaks.

use std::io;

use crate::h2::code;
use crate::wire::code::Code;

/// The peer has reset the stream. Found inside an [`io::Error`] of kind `ConnectionReset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reset by the peer: {0}")]
pub struct ResetByPeer(pub Code);

/// A reset with the peer's code, or the end of the whole connection as `NotConnected`: whatever
/// became of the socket below, it is no `UnexpectedEof` of the visitor's own TLS.
pub(super) fn broken(error: h2::Error) -> io::Error {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => reset(code(reason)),
        _ => io::Error::new(io::ErrorKind::NotConnected, error),
    }
}

pub(super) fn reset(code: Code) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, ResetByPeer(code))
}

/// A stream that we have ended ourselves.
pub(super) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the stream is closed")
}
