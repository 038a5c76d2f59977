//! TLS over another stream as an end of a splice, whichever side of it we are.
//!
//! A close without `close_notify` is a cut, not an end (RFC 8446, 6.1): whoever stands between could
//! otherwise shorten a transfer unseen. rustls reports it as an error on read, which the splice turns
//! into a reset of the other end.

use std::io;
use std::task::Context;

use tokio_rustls::TlsStream;

use super::duplex::Duplex;
use super::end::Halves;
use crate::wire::code::Code;

impl<D: Duplex> Duplex for TlsStream<D> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.get_mut().0.check(cx)
    }

    fn part(&mut self, halves: Halves) {
        self.get_mut().0.part(halves);
    }

    fn break_off(&mut self, code: Code) {
        self.get_mut().0.break_off(code);
    }

    fn is_sound(&self) -> bool {
        true
    }

    fn pinned(&self) -> u64 {
        self.get_ref().0.pinned()
    }
}
