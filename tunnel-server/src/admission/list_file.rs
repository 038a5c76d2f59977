//! The text of a list of agents: an id a line, with a comment behind it if one likes.
//!
//! ```text
//! # the cameras
//! 3kousix2rszq526vyn6uvuzoce  front door
//! ```
//!
//! Reading and editing are functions from text to text; `allow` and `deny` put them on a file.

use std::io;
use std::path::{Path, PathBuf};

use tunnel_common::escape::Escaped;
use tunnel_common::identity::Label;
use tunnel_common::private_file::{self, Guard};

/// The longest list: room for 100,000 ids.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// What a new file begins with.
pub const HEAD: &str = "# Agents that may register: an id a line, and what you like behind it.\n";

/// An agent that is in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Label,
    /// What stands behind it.
    pub comment: String,
}

/// Why a list can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The file can not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no entry. The rest is not used either: it may be half of a file.
    #[error(
        "{path}, line {line}: '{text}' does not begin with an id of 26 characters; mend the line or \
         remove it"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What it says, escaped.
        text: String,
    },
}

/// Reads the list in `path`. A file that is not there is an error of the kind `NotFound`.
pub fn read(path: &Path) -> Result<Vec<Entry>, ListError> {
    let text = private_file::read(path, Guard::Trusted, MAX_BYTES);
    parse(path, &text.map_err(|error| failed(path, error))?)
}

/// Whether the file is not there.
pub fn is_missing(error: &ListError) -> bool {
    matches!(error, ListError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// What an edit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// The list is another one now.
    Changed,
    /// It was so already.
    Unchanged,
}

/// Enters `id`, with `comment` behind it, in the list in `path`, which is made if it is missing.
pub fn allow(path: &Path, id: Label, comment: &str) -> Result<Edited, ListError> {
    edit(path, |entries, text| {
        if entries.iter().any(|entry| entry.id == id) {
            return None;
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let line = format!("{id}  {comment}");
        Some(format!("{text}{end}{}\n", line.trim_end()))
    })
}

/// Removes every line of `id` from the list in `path`.
pub fn deny(path: &Path, id: Label) -> Result<Edited, ListError> {
    edit(path, |entries, text| {
        if !entries.iter().any(|entry| entry.id == id) {
            return None;
        }
        let others = |line: &&str| entry(line).is_none_or(|entry| entry.is_ok_and(|e| e.id != id));
        Some(text.split_inclusive('\n').filter(others).collect())
    })
}

/// Why a list was not edited.
#[derive(Debug, thiserror::Error)]
enum NotEdited {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] ListError),
}

fn edit(
    path: &Path,
    change: impl FnOnce(&[Entry], &str) -> Option<String>,
) -> Result<Edited, ListError> {
    let mut edited = Edited::Unchanged;
    let updated = private_file::update(path, MAX_BYTES, |old| {
        let old = old.unwrap_or(HEAD);
        let new = change(&parse(path, old)?, old);
        if new.is_some() {
            edited = Edited::Changed;
        }
        Ok(new)
    });
    match updated {
        Ok(()) => Ok(edited),
        Err(NotEdited::Io(error)) => Err(failed(path, error)),
        Err(NotEdited::Malformed(error)) => Err(error),
    }
}

fn failed(path: &Path, source: io::Error) -> ListError {
    let path = path.to_owned();
    ListError::Io { path, source }
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, ListError> {
    let lines = (1..).zip(text.lines());
    let entries = lines.filter_map(|(line, text)| {
        let parsed = entry(text)?;
        Some(parsed.map_err(|NoEntry| ListError::Malformed {
            path: path.to_owned(),
            line,
            text: Escaped(text).to_string(),
        }))
    });
    entries.collect()
}

/// A line that is neither empty nor a comment nor an entry.
struct NoEntry;

/// The entry of a line; `None` for one that says nothing.
fn entry(line: &str) -> Option<Result<Entry, NoEntry>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (id, comment) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let entry = id.parse().map(|id| Entry {
        id,
        comment: comment.trim().to_owned(),
    });
    Some(entry.map_err(|_| NoEntry))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn id(name: &str) -> Label {
        tunnel_common::identity::KeyFingerprint::of_spki(name.as_bytes()).label()
    }

    fn list() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("allowed_clients");
        (folder, path)
    }

    fn ids(path: &Path) -> Vec<Label> {
        let entries = read(path).expect("reads");
        entries.into_iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn what_is_allowed_is_in_the_list_and_what_is_denied_is_not() {
        let (_folder, path) = list();
        assert!(is_missing(&read(&path).expect_err("is missing")));
        let allowed = |name, comment| allow(&path, id(name), comment).expect("writes");
        assert_eq!(allowed("a", "front door"), Edited::Changed);
        assert_eq!(allowed("b", ""), Edited::Changed);
        assert_eq!(allowed("a", "again"), Edited::Unchanged);
        let entries = read(&path).expect("reads");
        assert_eq!(entries[0].comment, "front door");
        assert_eq!(ids(&path), [id("a"), id("b")]);
        assert_eq!(deny(&path, id("a")).expect("writes"), Edited::Changed);
        assert_eq!(deny(&path, id("a")).expect("reads"), Edited::Unchanged);
        assert_eq!(ids(&path), [id("b")]);
    }

    #[test]
    fn what_an_editor_wrote_stays_as_it_is() {
        let (_folder, path) = list();
        let (a, b) = (id("a"), id("b"));
        let text = format!("\n# ours\r\n  {a}\tthe # of a\r\n\n{b}");
        fs::write(&path, &text).expect("writes");
        assert_eq!(ids(&path), [a, b]);
        allow(&path, id("c"), " c\t").expect("writes");
        let now = fs::read_to_string(&path).expect("reads");
        assert_eq!(now, format!("{text}\n{}   c\n", id("c")));
        deny(&path, a).expect("writes");
        let now = fs::read_to_string(&path).expect("reads");
        assert_eq!(now, format!("\n# ours\r\n\n{b}\n{}   c\n", id("c")));
    }

    #[test]
    fn a_line_that_is_no_entry_is_an_error_that_names_it_and_nothing_is_changed() {
        let (_folder, path) = list();
        for bad in ["x", "A".repeat(26).as_str(), "<<<<<<< HEAD", "\u{1b}[31m"] {
            let text = format!("{}\n{bad}\n", id("a"));
            fs::write(&path, &text).expect("writes");
            let error = read(&path).expect_err("malformed").to_string();
            assert!(
                error.contains("line 2") && !error.contains('\u{1b}'),
                "{error}"
            );
            assert!(allow(&path, id("b"), "").is_err());
            assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        }
    }
}
