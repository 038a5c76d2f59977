//! What a parser made of an input.

/// What a parser made of an input. The name of a file in a corpus begins with it, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be.
    Taken,
    /// Nothing that may follow can mend it.
    Refused,
    /// More must come.
    Undecided,
}

impl Verdict {
    /// The verdict of a parser that is either content or not; `None` if it waits.
    pub fn of<T, E>(outcome: Option<&Result<T, E>>) -> Self {
        match outcome {
            Some(Ok(_)) => Self::Taken,
            Some(Err(_)) => Self::Refused,
            None => Self::Undecided,
        }
    }
}
