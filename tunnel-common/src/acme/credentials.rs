//! The file with our accounts at authorities, and with what must not be forgotten between two starts: until
//! when nobody may be asked for a name.
//!
//! ```json
//! { "accounts": [ { "directory": "https://…", "key_pkcs8": "<base64url>", "id": "https://… or null" } ],
//!   "waits": [ { "directory": "https://…", "host": "…", "since": 1789990000, "until": 1790000000,
//!                "failures": 2, "unfinished": 0, "why": "…" } ] }
//! ```
//!
//! A key is on the disk before the account is made with it, so that whoever is killed in between asks for the
//! same account again and not for a second one. An account has no `id` until the authority has told it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use super::authority::DirectoryUrl;
use super::failure::Failure;
use crate::file_watch::off_the_reactor;
use crate::hostname::Hostname;
use crate::private_file::{self, Guard};

/// The longest file: an account has half a KiB, and so has a wait.
const MAX_BYTES: u64 = 256 * 1024;
/// Waits that are kept, the newest: a relay could make an agent have ever more names.
const MAX_WAITS: usize = 64;

/// The file. Cheap to clone: clones take turns with accounts.
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    turn: Arc<Mutex<()>>,
}

/// What is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(default)]
    pub(super) accounts: Vec<StoredAccount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) waits: Vec<StoredWait>,
}

/// An account, or a key with which one is to be made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) directory: String,
    /// PKCS#8 in base64url without padding.
    pub(super) key_pkcs8: String,
    pub(super) id: Option<String>,
}

/// What must not be forgotten of the orders for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredWait {
    pub(super) directory: String,
    pub(super) host: String,
    /// When that was written, in seconds since 1970.
    pub(super) since: u64,
    /// Until when nobody may be asked, in seconds since 1970.
    pub(super) until: u64,
    /// So many failures in a row.
    pub(super) failures: u32,
    /// Orders that were begun since, and of whose end nobody knows.
    #[serde(default)]
    pub(super) unfinished: u32,
    /// The last failure, for people.
    pub(super) why: String,
}

impl StoredWait {
    /// Nothing to wait for.
    pub(super) fn new(directory: &DirectoryUrl, host: &Hostname) -> Self {
        Self {
            directory: directory.to_string(),
            host: host.to_string(),
            since: 0,
            until: 0,
            failures: 0,
            unfinished: 0,
            why: String::new(),
        }
    }

    fn is_for(&self, directory: &DirectoryUrl, host: &Hostname) -> bool {
        self.directory == directory.as_str() && self.host == host.as_str()
    }
}

/// Why the file is of no use. It is left as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// It can not be read, or others may read or change it.
    #[error("the ACME credentials {path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "the ACME credentials {path} can not be understood: {source}. To make new accounts, move the \
         file away"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl Stored {
    pub(super) fn account(&self, directory: &DirectoryUrl) -> Option<&StoredAccount> {
        let mut accounts = self.accounts.iter();
        accounts.find(|account| account.directory == directory.as_str())
    }

    /// Puts `account` in the place of the one at the same authority.
    pub(super) fn put(&mut self, account: StoredAccount) {
        self.accounts
            .retain(|other| other.directory != account.directory);
        self.accounts.push(account);
    }

    pub(super) fn wait(&self, directory: &DirectoryUrl, host: &Hostname) -> Option<&StoredWait> {
        self.waits.iter().find(|wait| wait.is_for(directory, host))
    }

    /// Puts `wait` in the place of the one for the same name, or takes that away. The oldest go.
    pub(super) fn put_wait(
        &mut self,
        directory: &DirectoryUrl,
        host: &Hostname,
        wait: Option<StoredWait>,
    ) {
        self.waits.retain(|other| !other.is_for(directory, host));
        self.waits.extend(wait);
        let surplus = self.waits.len().saturating_sub(MAX_WAITS);
        self.waits.drain(..surplus);
    }
}

impl CredentialsFile {
    /// The file at `path`, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            turn: Arc::default(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever makes an account holds this meanwhile: two names that begin together have one.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Whether it is of use, or not there. It blocks the thread.
    pub fn check(&self) -> Result<(), CredentialsError> {
        self.read().map(drop)
    }

    /// What is in it; nothing if it is not there. It blocks the thread.
    fn read(&self) -> Result<Stored, CredentialsError> {
        let text = match private_file::read(&self.path, Guard::Secret, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(source) => {
                let path = self.path.clone();
                return Err(CredentialsError::Read { path, source });
            }
        };
        serde_json::from_str(&text).map_err(|source| CredentialsError::Corrupt {
            path: self.path.clone(),
            source,
        })
    }

    /// What is in it; nothing if it is not there.
    pub(super) async fn load(&self) -> Result<Stored, Failure> {
        let file = self.clone();
        self.apart(move || file.read().map_err(io::Error::other))
            .await
    }

    /// Changes what is in it, on the disk when it returns, and gives what `change` gave.
    pub(super) async fn update<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Stored) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        let path = self.path.clone();
        let updating = move || {
            let mut result = None;
            private_file::update(&path, MAX_BYTES, |old| {
                let mut stored: Stored = match old {
                    Some(text) => serde_json::from_str(text)?,
                    None => Stored::default(),
                };
                result = Some(change(&mut stored));
                let new = serde_json::to_string_pretty(&stored)? + "\n";
                if new.len() as u64 > MAX_BYTES {
                    return Err(io::Error::other(format!(
                        "it would have over {MAX_BYTES} bytes"
                    )));
                }
                Ok::<_, io::Error>((old != Some(new.as_str())).then_some(new))
            })?;
            result.ok_or_else(|| io::Error::other("nothing was changed"))
        };
        self.apart(updating).await
    }

    /// Runs what takes as long as the disk does on a thread where that holds up nobody.
    async fn apart<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> Result<R, Failure> {
        off_the_reactor(work).await.map_err(|source| Failure::File {
            path: self.path.clone(),
            source,
        })
    }
}

impl std::fmt::Debug for StoredAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoredAccount")
            .field(&self.directory)
            .field(&self.id)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn account(directory: &DirectoryUrl, id: Option<&str>) -> StoredAccount {
        StoredAccount {
            directory: directory.to_string(),
            key_pkcs8: "c2VjcmV0".to_owned(),
            id: id.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn each_authority_has_one_account_and_the_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::new(folder.path().join("creds.json"));
        assert_eq!(file.load().await.expect("nothing"), Stored::default());
        let (real, staging) = (
            DirectoryUrl::lets_encrypt(),
            DirectoryUrl::lets_encrypt_staging(),
        );
        for put in [
            account(&real, None),
            account(&staging, None),
            account(&real, Some("1")),
        ] {
            file.update(|stored| stored.put(put)).await.expect("stores");
        }
        let stored = file.load().await.expect("loads");
        assert_eq!(stored.account(&real), Some(&account(&real, Some("1"))));
        assert_eq!(stored.account(&staging), Some(&account(&staging, None)));
        let mode = fs::metadata(file.path())
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{stored:?}").contains("c2VjcmV0"));
    }

    #[tokio::test]
    async fn waits_are_kept_by_name_and_only_so_many_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = CredentialsFile::new(folder.path().join("creds.json"));
        let directory = DirectoryUrl::lets_encrypt();
        let host = |number: usize| format!("h{number}.example").parse().expect("a name");
        for number in 0..=MAX_WAITS {
            let (directory, host) = (directory.clone(), host(number));
            let mut wait = StoredWait::new(&directory, &host);
            wait.failures = 2;
            file.update(move |stored| stored.put_wait(&directory, &host, Some(wait)))
                .await
                .expect("stores");
        }
        let stored = file.load().await.expect("loads");
        assert_eq!(stored.waits.len(), MAX_WAITS);
        assert!(
            stored.wait(&directory, &host(0)).is_none(),
            "the oldest went"
        );
        let wait = stored.wait(&directory, &host(1)).expect("is there");
        assert_eq!(wait.failures, 2);
        let (directory, gone) = (directory.clone(), host(1));
        let update = file.update(move |stored| {
            stored.put_wait(&directory, &gone, None);
            stored.wait(&directory, &gone).is_none()
        });
        assert!(update.await.expect("stores"));
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_an_error_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("creds.json");
        private_file::create(&path, b"{ half").expect("writes");
        let file = CredentialsFile::new(path.clone());
        let error = file.check().expect_err("is corrupt").to_string();
        assert!(error.contains("creds.json"), "{error}");
        let update = file.update(|stored| stored.accounts.clear()).await;
        assert!(
            update
                .expect_err("is corrupt")
                .to_string()
                .contains("creds.json")
        );
        assert_eq!(fs::read_to_string(&path).expect("reads"), "{ half");
        fs::write(&path, "{}").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("is ours");
        let error = file.check().expect_err("others read it").to_string();
        assert!(error.contains("chmod"), "{error}");
    }
}
