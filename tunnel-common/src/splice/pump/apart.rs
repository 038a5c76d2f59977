//! A first end that may be joined to another one, as long as nothing has gone over the splice.

use super::super::end::End;
use super::Splice;
use crate::wire::code::Code;

impl<A: End, B: End> Splice<A, B> {
    /// The same splice, for a first end that may be joined to another one later: while the splice is
    /// untouched, its end is not told to it.
    pub fn keeping_first(mut self) -> Self {
        self.keeps_first = true;
        self
    }

    /// Whether nothing has come out of either end yet, not even its end.
    pub fn is_untouched(&self) -> bool {
        !self.a_to_b.has_taken() && !self.b_to_a.has_taken()
    }

    /// Resets the second end with `code`, and gives the first back if the splice is untouched and
    /// [`keeping_first`](Self::keeping_first): as if they had never been joined. Else it is dropped.
    pub fn take_apart(mut self, code: Code) -> Option<A> {
        self.b.abort(code);
        (self.keeps_first && self.is_untouched()).then_some(self.a)
    }
}
