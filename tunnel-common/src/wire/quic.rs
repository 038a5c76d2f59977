//! The wire over QUIC: codes as its numbers, and the end of a control stream.

use quinn::{SendStream, VarInt};

use super::code::Code;
use super::control::ControlWriter;

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        code.number().into()
    }
}

impl From<VarInt> for Code {
    fn from(number: VarInt) -> Self {
        number.into_inner().into()
    }
}

impl ControlWriter<SendStream> {
    /// Ends the stream, and waits until the peer has all that was sent or the connection is gone.
    /// The caller sets the deadline.
    pub async fn end(self) {
        let mut stream = self.into_inner();
        if stream.finish().is_ok() {
            // Whether it has heard or can not hear any more: there is nothing left to do.
            let _ = stream.stopped().await;
        }
    }
}
