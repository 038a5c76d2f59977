//! Private keys and the files they live in.
//!
//! A key is an identity: one that is lost or silently replaced is another agent, or another relay.
//! So a file that can not be read as a key is an error, never a reason to make a new one, and a new
//! one is on the disk, complete, before anybody uses it.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind::{PermissionDenied, Unsupported};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
use rustix::fs::{CWD, RenameFlags};

use crate::identity::KeyFingerprint;
use crate::tls;

/// The longest key file that is read: a PEM key has under 1 KiB.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Where a process keeps what must survive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// This folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder that the user chose for `binary`, or else the one by default.
    pub fn chosen(path: Option<&Path>, binary: &str) -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        path.map_or_else(|| Self::by_default(binary, variable), Self::new)
    }

    /// The folder where `binary` keeps its state when nobody says otherwise: `$STATE_DIRECTORY`
    /// (systemd), else `$XDG_STATE_HOME/<binary>`, else the working directory.
    ///
    /// `variable` looks up an environment variable.
    pub fn by_default(binary: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        let path = set("STATE_DIRECTORY")
            .or_else(|| set("XDG_STATE_HOME").map(|home| home.join(binary)))
            .unwrap_or_else(|| PathBuf::from("."));
        Self(path)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the file `name` is: an absolute name stands for itself, a relative one is in this
    /// folder, unless the working directory has such a file.
    pub fn file(&self, name: &Path) -> PathBuf {
        // A link counts as the file that it is to lead to, even if that is not there yet.
        let is_here = fs::symlink_metadata(name).is_ok_and(|found| !found.is_dir());
        if name.is_absolute() || is_here {
            name.to_owned()
        } else {
            self.0.join(name)
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file is there but can not be read.
    #[error("the key file {path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "the key file {path} holds no usable key: {why}. It must be a P-256 or Ed25519 private key \
         in PEM (PKCS#8). To start over with a new identity, move the file away"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A new key could not be made.
    #[error("a new key could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// A new key could not be stored.
    #[error("the new key could not be written to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a key was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was read from its file.
    Found,
    /// It is new.
    Made,
}

/// Reads the key in `path`, or makes one there if there is no such file.
pub fn load_or_make(path: &Path) -> Result<(KeyPair, Origin), KeyError> {
    let read = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    match read_bounded(path) {
        Ok(pem) => Ok((parse(path, &pem)?, Origin::Found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = tls::generate_key()?;
            match write_secret(path, key.serialize_pem().as_bytes()) {
                Ok(()) => Ok((key, Origin::Made)),
                // Another process was faster: its key is the identity.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let pem = read_bounded(path).map_err(read)?;
                    Ok((parse(path, &pem)?, Origin::Found))
                }
                Err(source) => Err(KeyError::Write {
                    path: path.to_owned(),
                    source,
                }),
            }
        }
        Err(source) => Err(read(source)),
    }
}

/// The fingerprint of the public half.
pub fn fingerprint(key: &KeyPair) -> KeyFingerprint {
    KeyFingerprint::of_spki(&key.subject_public_key_info())
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let file = File::open(path).map_err(|error| tell_dangling(path, error))?;
    let mut text = String::new();
    file.take(MAX_KEY_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is far too large for a key",
        ));
    }
    Ok(text)
}

/// A link to a file that is not there, a secret that is not mounted yet, is not "no key".
fn tell_dangling(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() {
        return io::Error::other("it is a link to a file that is not there");
    }
    error
}

fn parse(path: &Path, pem: &str) -> Result<KeyPair, KeyError> {
    let corrupt = |why: String| KeyError::Corrupt {
        path: path.to_owned(),
        why,
    };
    let key = KeyPair::from_pem(pem).map_err(|error| corrupt(error.to_string()))?;
    let supported = [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519];
    if !supported
        .iter()
        .any(|algorithm| key.is_compatible(algorithm))
    {
        return Err(corrupt("its kind of key is not supported".to_owned()));
    }
    Ok(key)
}

/// Writes a file that only its owner may read, whole or not at all: a temporary file beside it is
/// filled, synced and linked to its name, then the folder is synced. The folder is made if it is
/// missing. A file that is there already is an error, never overwritten.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    // Random: in containers every process has the same number.
    temporary.push(format!(".{:016x}.tmp", fastrand::u64(..)));
    let temporary = PathBuf::from(temporary);
    let written = fill(&temporary, bytes).and_then(|()| place(&temporary, path));
    // An error of the above is the one to tell; what is left behind has no name that is ever read.
    let _ = fs::remove_file(&temporary);
    written?;
    // The key is in its place; some folders can not be opened or synced, and need not be.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Gives a file its name, unless somebody has it.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        Err(error) if matches!(error.kind(), Unsupported | PermissionDenied) => {
            // No links on this file system, as on FAT and some mounts.
            rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)?;
            Ok(())
        }
        linked => linked,
    }
}

fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/agent.key");
        let (made, origin) = load_or_make(&path).expect("makes");
        assert_eq!(origin, Origin::Made);
        let (found, origin) = load_or_make(&path).expect("finds");
        assert_eq!(origin, Origin::Found);
        assert_eq!(fingerprint(&made), fingerprint(&found));
    }

    #[test]
    fn only_the_owner_may_read_a_new_key_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sub/agent.key");
        load_or_make(&path).expect("makes");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a folder")), 0o700);
        assert_eq!(
            fs::read_dir(folder.path().join("sub"))
                .expect("lists")
                .count(),
            1
        );
    }

    #[test]
    fn a_corrupt_key_is_an_error_that_names_the_file_and_leaves_it_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.key");
        for content in [
            "",
            "not a key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            fs::write(&path, content).expect("writes");
            let error = load_or_make(&path).expect_err("no key").to_string();
            assert!(error.contains("agent.key"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("reads"), content);
        }
    }

    #[test]
    fn a_link_to_a_secret_that_is_not_mounted_yet_is_no_reason_for_a_new_identity() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, secret) = (
            folder.path().join("agent.key"),
            folder.path().join("secret"),
        );
        std::os::unix::fs::symlink(&secret, &path).expect("links");
        let error = load_or_make(&path).expect_err("no key").to_string();
        assert!(error.contains("link"), "{error}");
        fs::write(&secret, tls::generate_key().expect("a key").serialize_pem()).expect("writes");
        assert_eq!(load_or_make(&path).expect("reads").1, Origin::Found);
    }

    #[test]
    fn other_kinds_of_key_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.key");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        fs::write(&path, key.serialize_pem()).expect("writes");
        let error = load_or_make(&path).expect_err("refused").to_string();
        assert!(error.contains("P-256 or Ed25519"), "{error}");
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        fs::write(&path, key.serialize_pem()).expect("writes");
        assert!(load_or_make(&path).is_ok());
    }

    #[test]
    fn the_data_folder_follows_the_environment() {
        let at = |set: &'static [(&str, &str)]| {
            DataDir::by_default("client", |name| {
                set.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| PathBuf::from(value))
            })
        };
        assert_eq!(at(&[]).path(), Path::new("."));
        assert_eq!(
            at(&[("XDG_STATE_HOME", "/x")]).path(),
            Path::new("/x/client")
        );
        assert_eq!(
            at(&[("XDG_STATE_HOME", "/x"), ("STATE_DIRECTORY", "/s")]).path(),
            Path::new("/s")
        );
        assert_eq!(at(&[("STATE_DIRECTORY", "")]).path(), Path::new("."));
    }

    #[test]
    fn a_relative_file_is_in_the_data_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::new(folder.path());
        assert_eq!(
            data.file(Path::new("no-such.key")),
            folder.path().join("no-such.key")
        );
        assert_eq!(data.file(Path::new("/etc/k.key")), Path::new("/etc/k.key"));
        assert_eq!(data.file(Path::new("Cargo.toml")), Path::new("Cargo.toml"));
    }
}
