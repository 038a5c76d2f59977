//! Codes as QUIC's numbers.

use quinn::VarInt;

use super::code::Code;

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
