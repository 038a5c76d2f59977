//! What the libraries log in a story's own process.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::util::SubscriberInitExt as _;

/// A subscriber beside that of a story. Were there one alone, tracing would ask that of whichever thread comes to a
/// line first, and without one there the line is lost for all.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// What one thread logs, from INFO up.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// This thread's, until the guard is dropped.
    pub fn of_this_thread() -> (Self, DefaultGuard) {
        LazyLock::force(&ANOTHER);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        (log, subscriber.with_ansi(false).finish().set_default())
    }

    /// The lines with this text.
    pub fn with(&self, text: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("not poisoned").clone();
        let log = String::from_utf8(bytes).expect("UTF-8");
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
