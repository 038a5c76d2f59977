//! Files that somebody replaces while the process runs.
//!
//! They are looked at from time to time, and nobody is asked to tell: links, renames and mounted secrets
//! are alike to that, on any file system, and a look costs one `stat` a file. A change counts when two
//! looks see it alike, so that a file that is being written is not read half.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Looks at some files, and tells when they should be read.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    looks: Interval,
    seen: Seen,
}

impl FileWatch {
    /// Looks at `files`, of which any may be missing, every so often: `every` must not be zero. Must be
    /// called inside a tokio runtime.
    pub fn new(files: Vec<PathBuf>, every: Duration) -> Self {
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            files,
            looks,
            seen: Seen::default(),
        }
    }

    /// Ready when the files should be read. The first time that is soon: what changed before the first
    /// look is seen as well. Then it is whenever one of them has changed, is new or is gone.
    ///
    /// It takes two looks; files that change at every look are read as they are at the second. Cancel
    /// safe.
    pub async fn changed(&mut self) {
        loop {
            self.looks.tick().await;
            let files = self.files.clone();
            let stamps = move || files.iter().map(|path| Stamp::of(path)).collect();
            if self.seen.look(off_the_reactor(stamps).await) {
                return;
            }
        }
    }

    /// The files could not be read: they should be at the next look, whether they change or not.
    pub fn try_again(&mut self) {
        self.seen.read = None;
    }
}

/// Runs `work`, which may block the thread, for files may be on a network, and slow. A panic in it is
/// passed on. Dropping the future leaves the work to end by itself.
pub async fn off_the_reactor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime ends, and this with it; or the work panicked.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Some files as one look sees them.
type Stamps = Vec<Option<Stamp>>;

/// What the looks have seen.
#[derive(Debug, Default)]
struct Seen {
    /// When the files were read; nothing if they have to be read again in any case.
    read: Option<Stamps>,
    /// At the last look.
    last: Option<Stamps>,
}

impl Seen {
    /// Takes what a look sees, and says whether the files should be read now.
    fn look(&mut self, stamps: Stamps) -> bool {
        let stamps = Some(stamps);
        let has_settled = stamps == self.last;
        // Files that change at every look are read as they are: a removal does not wait for their end.
        let has_waited = self.last != self.read;
        let is_due = stamps != self.read && (has_settled || has_waited);
        if is_due {
            self.read.clone_from(&stamps);
        }
        self.last = stamps;
        is_due
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Follows links. `None` if there is no file, or none that could be looked at.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            file: (file.dev(), file.ino()),
            size: file.size(),
            // Not the time of the last write, which a copy can set back.
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    /// A file as it is after so many changes.
    fn after(changes: i64) -> Stamps {
        vec![Some(Stamp {
            file: (1, 1),
            size: 1,
            changed: (changes, 0),
        })]
    }

    #[test]
    fn a_change_counts_when_two_looks_see_it_alike_and_then_once() {
        let mut seen = Seen::default();
        let looks = [1, 1, 1, 2, 2, 2].map(|changes| seen.look(after(changes)));
        assert_eq!(looks, [false, true, false, false, true, false]);
        assert!(!seen.look(vec![None]), "it is gone");
        assert!(seen.look(vec![None]));
    }

    #[test]
    fn a_file_that_changes_at_every_look_is_read_all_the_same() {
        let mut seen = Seen::default();
        let looks = [1, 2, 3, 4, 5].map(|changes| seen.look(after(changes)));
        assert_eq!(looks, [false, true, false, true, false]);
    }

    /// Whether nothing changes for some looks.
    async fn stays(files: &mut FileWatch) -> bool {
        timeout(4 * EVERY, files.changed()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_seen_to_come_to_change_and_to_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        let mut files = FileWatch::new(vec![path.clone()], EVERY);
        files.changed().await;
        assert!(stays(&mut files).await, "nothing has changed");
        fs::write(&path, "a").expect("writes");
        files.changed().await;
        fs::write(folder.path().join("new"), "b").expect("writes");
        fs::rename(folder.path().join("new"), &path).expect("replaces");
        files.changed().await;
        fs::remove_file(&path).expect("removes");
        files.changed().await;
        assert!(stays(&mut files).await, "told once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_read_is_to_be_read_at_the_next_look() {
        let mut files = FileWatch::new(vec!["no such file".into()], EVERY);
        files.changed().await;
        files.try_again();
        let again = timeout(EVERY + EVERY / 2, files.changed()).await;
        assert!(again.is_ok());
    }
}
