//! Relays whose key was believed once, and is expected from then on.
//!
//! A text file: on each line `host:port`, a space, and the fingerprint as the relay prints it.
//! Empty lines and what follows a `#` mean nothing. It is read anew before each dial, so a line
//! that is removed, or changed, counts at once.

use std::io;
use std::path::{Path, PathBuf};

use tunnel_common::escape::Escaped;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::private_file::{self, Guard};

use crate::relay_addr::RelayAddr;

/// The longest file: room for 10,000 relays.
const MAX_BYTES: u64 = 1024 * 1024;
/// What a new file begins with.
const HEAD: &str =
    "# Relays whose key was believed on first sight. A line that is removed is forgotten.\n";

/// The file of known relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRelays(PathBuf);

/// A relay that is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The fingerprint of its key.
    pub key: KeyFingerprint,
    /// The line that says so, from 1.
    pub line: usize,
}

/// What the file says about a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is no file.
    NoFile,
    /// The file does not name the relay.
    NoLine,
    /// It does.
    Line(Known),
}

/// Why the file can not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownRelaysError {
    /// It can not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not understood. Nobody can tell whom it would have protected from.
    #[error(
        "{path}, line {line}: '{text}' is not 'host:port sha256//…'; mend the line or remove it"
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

/// Why a relay was not recorded.
#[derive(Debug, thiserror::Error)]
enum NotRecorded {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] KnownRelaysError),
}

impl KnownRelays {
    /// The file at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is known about `relay`. The whole file must be understood.
    pub fn find(&self, relay: &RelayAddr) -> Result<Option<Known>, KnownRelaysError> {
        Ok(match self.look_up(relay)? {
            Found::Line(known) => Some(known),
            Found::NoFile | Found::NoLine => None,
        })
    }

    /// As [`find`](Self::find), and tells a file that is not there from one without the relay.
    pub(crate) fn look_up(&self, relay: &RelayAddr) -> Result<Found, KnownRelaysError> {
        match private_file::read(&self.0, Guard::Trusted, MAX_BYTES) {
            Ok(text) => Ok(self
                .find_in(&text, relay)?
                .map_or(Found::NoLine, Found::Line)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::NoFile),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Records `key` for `relay`, unless something is known about it by now. Gives what is in the
    /// file then: another process may have been faster. It blocks the thread, for up to 2 s where
    /// others write too.
    pub fn record(
        &self,
        relay: &RelayAddr,
        key: KeyFingerprint,
    ) -> Result<Known, KnownRelaysError> {
        let mut recorded = Known { key, line: 0 };
        let updated = private_file::update(&self.0, MAX_BYTES, |old| {
            let old = old.unwrap_or(HEAD);
            if let Some(known) = self.find_in(old, relay)? {
                recorded = known;
                return Ok(None);
            }
            let end = if old.is_empty() || old.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            let new = format!("{old}{end}{relay} {key}\n");
            recorded.line = new.lines().count();
            Ok(Some(new))
        });
        match updated {
            Ok(()) => Ok(recorded),
            Err(NotRecorded::Io(error)) => Err(self.io(error)),
            Err(NotRecorded::Malformed(error)) => Err(error),
        }
    }

    fn io(&self, source: io::Error) -> KnownRelaysError {
        let path = self.0.clone();
        KnownRelaysError::Io { path, source }
    }

    fn find_in(&self, text: &str, relay: &RelayAddr) -> Result<Option<Known>, KnownRelaysError> {
        let mut found = None;
        for (line, text) in (1..).zip(text.lines()) {
            let rule = text.split('#').next().unwrap_or_default().trim();
            if rule.is_empty() {
                continue;
            }
            let (address, key) = parse(rule).ok_or_else(|| KnownRelaysError::Malformed {
                path: self.0.clone(),
                line,
                text: Escaped(text).to_string(),
            })?;
            if address == *relay && found.is_none() {
                found = Some(Known { key, line });
            }
        }
        Ok(found)
    }
}

fn parse(rule: &str) -> Option<(RelayAddr, KeyFingerprint)> {
    let (address, key) = rule.split_once(char::is_whitespace)?;
    Some((address.parse().ok()?, key.trim_start().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn relay(text: &str) -> RelayAddr {
        text.parse().expect("a relay")
    }

    fn key(name: &str) -> KeyFingerprint {
        KeyFingerprint::of_spki(name.as_bytes())
    }

    fn file() -> (tempfile::TempDir, KnownRelays) {
        let folder = tempfile::tempdir().expect("a folder");
        let known = KnownRelays::new(folder.path().join("sub/known_relays"));
        (folder, known)
    }

    #[test]
    fn a_relay_is_known_once_it_is_recorded_by_host_and_port() {
        let (_folder, known) = file();
        let at = |address| known.find(&relay(address)).expect("reads");
        assert_eq!(at("127.0.0.1"), None);
        let recorded = known.record(&relay("127.0.0.1"), key("a")).expect("writes");
        let first = Known {
            key: key("a"),
            line: 2,
        };
        assert_eq!(recorded, first);
        known
            .record(&relay("Relay.local.:99"), key("b"))
            .expect("writes");
        assert_eq!(at("127.0.0.1:4433").map(|known| known.key), Some(key("a")));
        let named = Known {
            key: key("b"),
            line: 3,
        };
        assert_eq!(at("relay.LOCAL:99"), Some(named));
        assert_eq!(at("127.0.0.1:99"), None);
    }

    #[test]
    fn the_first_record_stays_whoever_comes_later() {
        let (_folder, known) = file();
        known.record(&relay("x"), key("first")).expect("writes");
        let recorded = known.record(&relay("x"), key("second")).expect("reads");
        assert_eq!((recorded.key, recorded.line), (key("first"), 2));
        let found = known.find(&relay("x")).expect("reads");
        assert_eq!(found.map(|known| known.key), Some(key("first")));
    }

    #[test]
    fn what_an_editor_leaves_is_understood() {
        let (folder, known) = file();
        fs::create_dir(folder.path().join("sub")).expect("makes");
        let text = format!(
            "\n# comment\r\n  x:1 \t {} # ours\r\ny {}",
            key("x"),
            key("y")
        );
        fs::write(known.path(), text).expect("writes");
        let at = |address| {
            known
                .find(&relay(address))
                .expect("reads")
                .map(|known| known.key)
        };
        assert_eq!((at("x:1"), at("y")), (Some(key("x")), Some(key("y"))));
        known.record(&relay("z"), key("z")).expect("writes");
        assert_eq!((at("y"), at("z")), (Some(key("y")), Some(key("z"))));
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error_that_names_it() {
        let (folder, known) = file();
        fs::create_dir(folder.path().join("sub")).expect("makes");
        for bad in [
            "x",
            "x sha256//AAAA",
            "x:0 sha256//",
            "<<<<<<< HEAD",
            "sha256//\u{1b}[31m x",
        ] {
            fs::write(known.path(), format!("\n{bad}\n")).expect("writes");
            let error = known
                .find(&relay("other"))
                .expect_err("malformed")
                .to_string();
            assert!(
                error.contains("line 2") && !error.contains('\u{1b}'),
                "{error}"
            );
            assert!(known.record(&relay("other"), key("x")).is_err());
        }
    }
}
