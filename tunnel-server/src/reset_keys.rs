//! The keys by which a relay that has lost its connections can still say so: QUIC's stateless resets
//! (RFC 9000, 10.3).
//!
//! While a connection is young the agent is told a token, made of the connection's id and a key. A
//! relay that has crashed and started again with that key can make the token anew, and answers with it what
//! still comes for the connection: the agent knows at once, and need not wait for silence. Only ids
//! that the relay may have given itself are answered; these it knows by a second key.
//!
//! They are no identity, and so may be lost: agents then find out by silence, once.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use rustls::crypto::GetRandomFailed;
use tracing::warn;
use tunnel_common::private_file::{self, Guard};
use tunnel_common::tls;

/// The key of the tokens: what HMAC-SHA256 asks for.
const TOKEN_KEY_BYTES: usize = 32;
/// The key of the ids.
const ID_KEY_BYTES: usize = 8;
const BYTES: usize = TOKEN_KEY_BYTES + ID_KEY_BYTES;
/// The longest file that is read: the keys in hex have 80 characters.
const MAX_FILE_BYTES: u64 = 1024;
/// The shortest time between two resets; what comes in between is not answered, and an agent asks again
/// after a round trip or two. A thousand agents send 500 keep-alives a second: quinn's default of 20 ms would
/// tell fifty of them. A reset is shorter than what it answers, so more of them amplify nothing.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// The keys of one relay. Whoever has them can end tunnels that he sees on their way.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKeys([u8; BYTES]);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetKeysError {
    /// The file is there but can not be read, or others may.
    #[error("the file of reset keys {path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has no randomness to give.
    #[error("the system gives no random bytes")]
    Random,
}

impl From<GetRandomFailed> for ResetKeysError {
    fn from(_: GetRandomFailed) -> Self {
        Self::Random
    }
}

impl ResetKeys {
    /// New keys.
    pub fn random() -> Result<Self, ResetKeysError> {
        Ok(Self(tls::random()?))
    }

    /// Reads the keys in `path`, or makes new ones there if there is no such file, or if it holds
    /// something else. Where they can not be stored a warning is given, and they hold until the process
    /// ends. A file that others may read or write is an error.
    pub fn load(path: &Path) -> Result<Self, ResetKeysError> {
        match read(path) {
            Ok(Some(keys)) => return Ok(keys),
            Ok(None) => {
                warn!(
                    "{} holds no reset keys; new ones take their place",
                    path.display()
                );
                // If it can not be removed, nothing can be put in its place either: that is told below.
                let _ = fs::remove_file(path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ResetKeysError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        let keys = Self::random()?;
        let text = HEXLOWER.encode(&keys.0) + "\n";
        match private_file::create(path, text.as_bytes()) {
            Ok(()) => Ok(keys),
            Err(error) => match read(path) {
                // Another process was faster.
                Ok(Some(theirs)) => Ok(theirs),
                _ => {
                    warn!(
                        "the reset keys can not be written to {}: {error}; after a crash of this relay agents \
                         will notice some seconds later",
                        path.display()
                    );
                    Ok(keys)
                }
            },
        }
    }

    /// The settings of the relay's QUIC endpoint.
    pub(crate) fn endpoint_config(&self) -> EndpointConfig {
        let (token_key, id_key) = self.0.split_at(TOKEN_KEY_BYTES);
        let id_key = id_key
            .iter()
            .fold(0, |key, byte| key << 8 | u64::from(*byte));
        let mut config =
            EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, token_key)));
        config
            .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)))
            .min_reset_interval(RESET_INTERVAL);
        config
    }
}

/// The keys in a file; none if it holds something else.
fn read(path: &Path) -> io::Result<Option<ResetKeys>> {
    let text = match private_file::read(path, Guard::Secret, MAX_FILE_BYTES) {
        Ok(text) => text,
        // Too long, or no text.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = HEXLOWER.decode(text.trim_end().as_bytes()).ok();
    let keys = bytes.and_then(|bytes| bytes.try_into().ok());
    Ok(keys.map(ResetKeys))
}

impl fmt::Debug for ResetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKeys(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        let file = fs::metadata(path).expect("is there");
        file.permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_for_their_owner_alone_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/reset.key");
        let made = ResetKeys::load(&path).expect("makes");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(ResetKeys::load(&path).expect("finds"), made);
        assert_ne!(ResetKeys::random().expect("draws"), made);
    }

    #[test]
    fn what_holds_no_keys_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("reset.key");
        let short = HEXLOWER.encode(&[7; BYTES - 1]);
        let long = "0".repeat(5000);
        for content in [&b""[..], b"\xff\xfe", short.as_bytes(), long.as_bytes()] {
            fs::write(&path, content).expect("writes");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("is ours");
            let made = ResetKeys::load(&path).expect("makes");
            assert_eq!(ResetKeys::load(&path).expect("finds"), made);
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_an_error_that_says_how_to_mend_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("reset.key");
        ResetKeys::load(&path).expect("makes");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("is ours");
        let error = ResetKeys::load(&path).expect_err("is open").to_string();
        assert!(
            error.contains("reset.key") && error.contains("chmod"),
            "{error}"
        );
    }

    #[test]
    fn where_nothing_can_be_written_keys_are_made_all_the_same() {
        let nowhere = Path::new("/proc/none/reset.key");
        let first = ResetKeys::load(nowhere).expect("makes");
        assert_ne!(ResetKeys::load(nowhere).expect("makes"), first);
    }
}
