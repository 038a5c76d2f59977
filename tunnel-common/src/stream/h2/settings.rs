//! What one end of a connection may set.

use std::time::Duration;

use crate::budget::MemoryBudget;

/// What one end of a connection sets by its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often the peer is asked whether it lives, behind its last answer.
    pub ping_every: Duration,
    /// A peer of which no byte comes for so long while it is asked is dead.
    pub silence: Duration,
    /// What the windows follow.
    pub budget: MemoryBudget,
}

impl Settings {
    /// The window in bytes that a connection begins with.
    pub(super) fn first_window(&self) -> u32 {
        self.budget.h2_windows().now().connection
    }
}
