//! How many places of the registry one tunnel has, and whether it should go.

/// What a tunnel has of places: one for each of its keys.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    places: usize,
    has_lost: bool,
}

/// Whether a tunnel should be retired: it has no place any more, and not by its own will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    Stays,
    Retires,
}

impl Seats {
    /// It has got one more.
    pub(crate) fn gained(&mut self) {
        self.places += 1;
    }

    /// It has given one up by itself. If it was the last, and others were taken from it before, the
    /// agent must not think that it serves.
    pub(crate) fn gave_up(&mut self) -> Stay {
        self.places -= 1;
        self.stay()
    }

    /// Another tunnel has got one of its.
    pub(crate) fn lost(&mut self) -> Stay {
        self.places -= 1;
        self.has_lost = true;
        self.stay()
    }

    /// How many it has.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.places
    }

    fn stay(&self) -> Stay {
        match self.places {
            0 if self.has_lost => Stay::Retires,
            _ => Stay::Stays,
        }
    }
}
