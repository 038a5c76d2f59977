//! A TCP connection as an end of a splice.

use std::io;
use std::task::Context;

use tokio::net::TcpStream;

use super::duplex::{Duplex, DuplexEnd};
use super::end::Halves;

/// A visitor's or a local service's connection. Dropped before what goes into it has ended cleanly
/// it sends RST; aborted it does so in any case.
pub type TcpEnd = DuplexEnd<TcpStream>;

impl Duplex for TcpStream {
    /// An RST does not wake a reader that is not there: the socket's error tells.
    fn check(&mut self, _: &mut Context<'_>) -> io::Result<()> {
        self.take_error()?.map_or(Ok(()), Err)
    }

    fn part(&mut self, halves: Halves) {
        // RST at once throws away what the kernel has not sent yet: not after a clean end of it.
        if matches!(halves, Halves::Both | Halves::OnlyIn) {
            // Fails only on a socket that is gone already, and then nothing is left to say.
            let _ = self.set_zero_linger();
        }
    }
}
