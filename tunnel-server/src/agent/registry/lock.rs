//! The lock around the registry: the standard library's, or one by which a test chooses who comes next.

use std::sync::{Mutex, PoisonError};

/// A value that one at a time may look at or change.
pub(crate) trait Lock<T> {
    /// A lock around `value`.
    fn new(value: T) -> Self;

    /// Waits for the lock, and acts on the value. `act` must not wait for anything.
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R;
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
