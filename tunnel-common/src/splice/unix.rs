//! A Unix socket as an end of a splice.
//!
//! Unix sockets know no RST. Closing one is a clean end to the peer, unless bytes of the peer's were
//! left unread: then it gets `ECONNRESET`. So a cut upload can look like a complete one here, and the
//! local service must know by other means - a length, an end mark - where it ends. The same holds the
//! other way round for a local service that breaks off its answer.

use std::io;
use std::task::Context;

use tokio::net::UnixStream;

use super::duplex::Duplex;
use super::end::Halves;

impl Duplex for UnixStream {
    /// That the peer closed with bytes of ours unread is in the socket's error, as on TCP.
    fn check(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        self.take_error()?.map_or(Ok(()), Err)
    }

    /// Closing is all that can be done.
    fn part(&mut self, _: Halves) {}
}
