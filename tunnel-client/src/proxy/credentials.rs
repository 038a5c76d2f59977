//! By what a proxy knows us.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::BASE64;
use tunnel_common::private_file::{self, Guard};

/// The environment variable that may have them: `user:password`, as they are.
pub const VARIABLE: &str = "QTUN_PROXY_CREDENTIALS";
/// The longest user name, and the longest password (RFC 1929, 2).
const MAX_PART_BYTES: usize = 255;
/// The longest file: two parts have an eighth of it.
const MAX_FILE_BYTES: u64 = 4096;

/// A user name and a password. Shown nowhere, neither by [`Debug`] nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

/// Why something is no [`Credentials`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadCredentials {
    /// There is no colon, or nothing before it.
    #[error("credentials are written user:password")]
    Form,
    /// More than SOCKS can carry.
    #[error("a user name and a password have at most {MAX_PART_BYTES} bytes each")]
    TooLong,
    /// A line end or another control character.
    #[error("a user name or a password has a control character")]
    ControlCharacter,
    /// Basic authentication could not tell where it ends.
    #[error("a user name has no colon")]
    ColonInUser,
}

/// Why a file gives no [`Credentials`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadCredentialsFile {
    /// It can not be read, or others may read it.
    #[error("{path} can not be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its first line is something else.
    #[error("{path}, first line: {source}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BadCredentials,
    },
}

impl Credentials {
    /// Takes a user name, which may not be empty, and a password, which may.
    pub fn new(user: &str, password: &str) -> Result<Self, BadCredentials> {
        if user.is_empty() {
            return Err(BadCredentials::Form);
        }
        if user.contains(':') {
            return Err(BadCredentials::ColonInUser);
        }
        for part in [user, password] {
            if part.len() > MAX_PART_BYTES {
                return Err(BadCredentials::TooLong);
            }
            if part.contains(char::is_control) {
                return Err(BadCredentials::ControlCharacter);
            }
        }
        Ok(Self {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Reads `user:password` from the first line of a file. Others may not read or change it, as if it
    /// were a key. Blocks the thread for as long as the disk takes.
    pub fn read(path: &Path) -> Result<Self, BadCredentialsFile> {
        let read = private_file::read(path, Guard::Secret, MAX_FILE_BYTES);
        let text = read.map_err(|source| BadCredentialsFile::Read {
            path: path.to_owned(),
            source,
        })?;
        let line = text.lines().next().unwrap_or_default();
        line.parse().map_err(|source| BadCredentialsFile::Bad {
            path: path.to_owned(),
            source,
        })
    }

    /// The user name.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The password, for a proxy's eyes only.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The value of `Proxy-Authorization` (RFC 7617, 2), in UTF-8.
    pub(super) fn basic(&self) -> String {
        let plain = format!("{}:{}", self.user, self.password);
        format!("Basic {}", BASE64.encode(plain.as_bytes()))
    }
}

/// `user:password`, as they are: nothing is percent-decoded, and the password may have colons.
impl FromStr for Credentials {
    type Err = BadCredentials;

    fn from_str(text: &str) -> Result<Self, BadCredentials> {
        let (user, password) = text.split_once(':').ok_or(BadCredentials::Form)?;
        Self::new(user, password)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_password_may_have_colons_and_a_user_name_may_not() {
        let parsed: Credentials = "aladdin:open:sesame".parse().expect("credentials");
        assert_eq!(
            (parsed.user(), parsed.password()),
            ("aladdin", "open:sesame")
        );
        assert_eq!(parsed.basic(), "Basic YWxhZGRpbjpvcGVuOnNlc2FtZQ==");
        let empty: Credentials = "aladdin:".parse().expect("credentials");
        assert_eq!(empty.password(), "");
        let bad = Credentials::new("a:b", "c");
        assert_eq!(bad, Err(BadCredentials::ColonInUser));
    }

    #[test]
    fn what_is_no_credentials_is_not_taken_and_not_told() {
        let long = "x".repeat(256);
        let cases = [
            (String::new(), BadCredentials::Form),
            ("secret".to_owned(), BadCredentials::Form),
            (":secret".to_owned(), BadCredentials::Form),
            (format!("{long}:secret"), BadCredentials::TooLong),
            (format!("secret:{long}"), BadCredentials::TooLong),
            ("secret:a\rb".to_owned(), BadCredentials::ControlCharacter),
        ];
        for (text, why) in cases {
            let error = text.parse::<Credentials>().expect_err("is none");
            assert_eq!(error, why, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let good: Credentials = "secret:secret".parse().expect("credentials");
        assert!(!format!("{good:?}").contains("secret"), "{good:?}");
    }

    #[test]
    fn a_file_has_them_in_its_first_line_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials");
        private_file::create(&path, b"aladdin:sesame\r\nanything\n").expect("creates");
        let read = Credentials::read(&path).expect("reads");
        assert_eq!((read.user(), read.password()), ("aladdin", "sesame"));

        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("is ours");
        let error = Credentials::read(&path).expect_err("others read it");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::write(&path, "sesame").expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("is ours");
        let error = Credentials::read(&path).expect_err("no colon").to_string();
        assert!(error.contains("user:password"), "{error}");
        assert!(!error.contains("sesame"), "{error}");
    }
}
