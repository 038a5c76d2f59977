//! Private keys and the files they live in.
//!
//! A key is an identity: one that is lost or silently replaced is another agent, or another relay.
//! So a file that can not be read as a key is an error, never a reason to make a new one, and a new
//! one is on the disk, complete, before anybody uses it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};

use crate::identity::KeyFingerprint;
use crate::private_file::{self, Guard};
use crate::tls;

/// The longest key file that is read: a PEM key has under 1 KiB.
pub const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

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
    /// There is no file, and none may be made.
    #[error("there is no key file {0}, and a key is required: put it there")]
    Missing(PathBuf),
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

/// What to do where there is no key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// Make a new key: a new identity.
    Make,
    /// Fail.
    Fail,
}

impl IfMissing {
    /// Fail if the key is required.
    pub fn required(required: bool) -> Self {
        if required { Self::Fail } else { Self::Make }
    }
}

/// Reads the key in `path`, or makes one there if there is no such file and that is wanted.
pub fn load(path: &Path, if_missing: IfMissing) -> Result<(KeyPair, Origin), KeyError> {
    match read(path) {
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        read => return Ok((read?, Origin::Found)),
    }
    if if_missing == IfMissing::Fail {
        return Err(KeyError::Missing(path.to_owned()));
    }
    let key = tls::generate_key()?;
    match private_file::create(path, key.serialize_pem().as_bytes()) {
        Ok(()) => Ok((key, Origin::Made)),
        // Another process was faster: its key is the identity.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((read(path)?, Origin::Found))
        }
        Err(source) => Err(KeyError::Write {
            path: path.to_owned(),
            source,
        }),
    }
}

fn read(path: &Path) -> Result<KeyPair, KeyError> {
    let pem = private_file::read(path, Guard::Secret, MAX_KEY_FILE_BYTES);
    let pem = pem.map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &pem)
}

/// The fingerprint of the public half.
pub fn fingerprint(key: &KeyPair) -> KeyFingerprint {
    KeyFingerprint::of_spki(&key.subject_public_key_info())
}

/// Whether certificate authorities certify this kind of key: those of the web do not know Ed25519.
pub fn may_be_certified(key: &KeyPair) -> bool {
    !key.is_compatible(&PKCS_ED25519)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("writes");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("is ours");
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/agent.key");
        let (made, origin) = load(&path, IfMissing::Make).expect("makes");
        assert_eq!(origin, Origin::Made);
        let (found, origin) = load(&path, IfMissing::Make).expect("finds");
        assert_eq!(origin, Origin::Found);
        assert_eq!(fingerprint(&made), fingerprint(&found));
    }

    #[test]
    fn a_required_key_that_is_missing_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.key");
        let error = load(&path, IfMissing::Fail).expect_err("is missing");
        assert!(error.to_string().contains("agent.key"), "{error}");
        assert!(!path.exists());
        let (made, _) = load(&path, IfMissing::Make).expect("makes");
        let (found, origin) = load(&path, IfMissing::Fail).expect("finds");
        assert_eq!(origin, Origin::Found);
        assert_eq!(fingerprint(&made), fingerprint(&found));
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
            write(&path, content);
            let error = load(&path, IfMissing::Make)
                .expect_err("no key")
                .to_string();
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
        let error = load(&path, IfMissing::Make)
            .expect_err("no key")
            .to_string();
        assert!(error.contains("link"), "{error}");
        write(
            &secret,
            &tls::generate_key().expect("a key").serialize_pem(),
        );
        assert_eq!(
            load(&path, IfMissing::Make).expect("reads").1,
            Origin::Found
        );
    }

    #[test]
    fn other_kinds_of_key_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent.key");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
        write(&path, &key.serialize_pem());
        let error = load(&path, IfMissing::Make)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("P-256 or Ed25519"), "{error}");
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        write(&path, &key.serialize_pem());
        assert!(load(&path, IfMissing::Make).is_ok());
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
