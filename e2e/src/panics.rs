//! Panics in tasks that nobody awaits: tokio contains them, and a story must not overlook them.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the panics of this process from [`watch`] on.
#[derive(Clone, Debug, Default)]
pub struct Panics(Arc<AtomicUsize>);

/// Begins to count. They are printed as before.
pub fn watch() -> Panics {
    let panics = Panics::default();
    let (count, before) = (panics.clone(), panic::take_hook());
    panic::set_hook(Box::new(move |info| {
        count.0.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    panics
}

impl Panics {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
