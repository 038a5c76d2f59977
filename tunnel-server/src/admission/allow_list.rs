//! The lists of agents that an operator keeps, read again whenever they change.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{error, info};
use tunnel_common::file_watch::{FileWatch, off_the_reactor};
use tunnel_common::identity::Label;

use super::list_file::{self, ListError};
use super::{Admission, Applicant, Deciding, Upkeep, Verdict};

/// How often the files are looked at. A change is taken at the second look that sees it alike, so
/// that a file that is being written is not read half: an id that is removed is gone within 1 s.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When an agent that is in no list may ask again: soon enough for somebody who waits for it, and
/// slow enough for strangers' agents that nobody will ever let in.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Admits the agents of some lists.
#[derive(Debug)]
pub struct AllowList {
    files: Vec<PathBuf>,
    ids: HashSet<Label>,
    how: String,
    ask_again: Duration,
    now: ArcSwap<HashSet<Label>>,
    changes: watch::Sender<u64>,
}

impl AllowList {
    /// Reads all lists: the ids themselves and the files, of which any may be missing. `how` is the
    /// command that enters an id, shown to those who are in no list, with the id behind it.
    pub fn load(
        files: Vec<PathBuf>,
        ids: HashSet<Label>,
        how: impl Into<String>,
    ) -> Result<Self, ListError> {
        let now = read_all(&files, &ids)?;
        Ok(Self {
            files,
            ids,
            how: how.into(),
            ask_again: ASK_AGAIN,
            now: ArcSwap::from_pointee(now),
            changes: watch::Sender::new(0),
        })
    }

    /// The same with another delay for those who are in no list.
    pub fn asked_again_after(self, ask_again: Duration) -> Self {
        Self { ask_again, ..self }
    }

    /// How many agents may register.
    pub fn len(&self) -> usize {
        self.now.load().len()
    }

    /// Whether nobody may register.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn refusal(&self, id: Label) -> Verdict {
        let how = &self.how;
        Verdict::Refused {
            text: format!(
                "the relay does not know the id {id} yet. To let it in, run on the relay: {how} {id}"
            ),
            retry_after: Some(self.ask_again),
        }
    }

    async fn watch(&self) {
        let mut files = FileWatch::new(self.files.clone(), LOOK_EVERY);
        let mut complaint = None;
        loop {
            files.changed().await;
            if !self.read_again(&mut complaint).await {
                // What could not be read now may be readable the next time.
                files.try_again();
            }
        }
    }

    /// Takes what the files say now, and says whether it could. A file that can not be used changes
    /// nothing; why it can not is told once.
    async fn read_again(&self, complaint: &mut Option<String>) -> bool {
        let (files, ids) = (self.files.clone(), self.ids.clone());
        let all = match off_the_reactor(move || read_all(&files, &ids)).await {
            Ok(all) => all,
            Err(error) => {
                let text = error.to_string();
                if complaint.as_ref() != Some(&text) {
                    error!("{text}; the agents that might register still may, and no others");
                }
                *complaint = Some(text);
                return !matches!(error, ListError::Io { .. });
            }
        };
        *complaint = None;
        if all != **self.now.load() {
            let agents = all.len();
            info!(agents, "the list of agents that may register has changed");
            self.now.store(all.into());
            self.changes.send_modify(|change| *change += 1);
        }
        true
    }
}

impl Admission for AllowList {
    fn decide<'a>(&'a self, applicant: &'a Applicant) -> Deciding<'a> {
        let id = applicant.id.label();
        let verdict = if self.now.load().contains(&id) {
            Verdict::Admitted
        } else {
            self.refusal(id)
        };
        Box::pin(std::future::ready(verdict))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn upkeep(&self) -> Upkeep<'_> {
        Box::pin(self.watch())
    }
}

fn read_all(files: &[PathBuf], ids: &HashSet<Label>) -> Result<HashSet<Label>, ListError> {
    let mut all = ids.clone();
    for path in files {
        match list_file::read(path) {
            Ok(entries) => all.extend(entries.into_iter().map(|entry| entry.id)),
            Err(error) if list_file::is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tunnel_common::identity::ClientId;

    use super::*;

    fn applicant(name: &str) -> Applicant {
        Applicant {
            id: ClientId::of_spki(name.as_bytes()),
            public_key: name.into(),
            extension: None,
            hosts: vec![],
        }
    }

    fn id(name: &str) -> Label {
        applicant(name).id.label()
    }

    async fn admits(list: &AllowList, name: &str) -> bool {
        list.decide(&applicant(name)).await == Verdict::Admitted
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("allowed_clients");
        (folder, path)
    }

    #[tokio::test]
    async fn ids_and_files_add_up_and_nobody_else_is_admitted() {
        let (_folder, path) = file();
        list_file::allow(&path, id("a"), "").expect("writes");
        let missing = path.with_extension("missing");
        let list = AllowList::load(vec![path, missing], [id("b")].into(), "allow").expect("reads");
        assert!(admits(&list, "a").await && admits(&list, "b").await);
        let stranger = applicant("c");
        let Verdict::Refused { text, retry_after } = list.decide(&stranger).await else {
            panic!("admitted");
        };
        assert!(text.ends_with(&format!("allow {}", id("c"))), "{text}");
        assert_eq!(retry_after, Some(ASK_AGAIN));
    }

    /// Whether nothing changes for some looks.
    async fn stays(changes: &mut watch::Receiver<u64>) -> bool {
        let changed = tokio::time::timeout(4 * LOOK_EVERY, changes.changed());
        changed.await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once_and_a_broken_file_changes_nothing() {
        let (_folder, path) = file();
        let list = AllowList::load(vec![path.clone()], HashSet::new(), "allow").expect("reads");
        let mut changes = list.changes();
        tokio::select! {
            () = list.watch() => unreachable!("watches for ever"),
            () = async {
                list_file::allow(&path, id("a"), "").expect("writes");
                changes.changed().await.expect("watches");
                assert!(admits(&list, "a").await);

                fs::write(&path, "rubbish").expect("writes");
                assert!(stays(&mut changes).await);
                assert!(admits(&list, "a").await);

                fs::write(&path, "").expect("writes");
                changes.changed().await.expect("watches");
                assert!(!admits(&list, "a").await);
                assert!(stays(&mut changes).await, "told once");
            } => {}
        }
    }
}
