//! Who certifies, and what it must be told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, DecodeError};
use http::Uri;
use instant_acme::LetsEncrypt;
use rustls::RootCertStore;

use super::dial::Dial;

/// A certificate authority that speaks ACME.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Where its directory is.
    pub directory: DirectoryUrl,
    /// Where it may write to about trouble with certificates.
    pub email: Option<String>,
    /// Who vouches for its API.
    pub roots: Arc<RootCertStore>,
    /// By which customer's account of its own it knows us, if it wants that (RFC 8555, 7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// The kind of certificate to order, of those that it offers; its own default without one.
    pub profile: Option<String>,
    /// How it is reached.
    pub dial: Arc<dyn Dial>,
}

/// The URL of an authority's directory: `https://`, with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUrl(String);

/// Why a text is no [`DirectoryUrl`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("an ACME directory is a URL that begins with https://")]
pub struct BadDirectoryUrl;

impl DirectoryUrl {
    /// Let's Encrypt.
    pub fn lets_encrypt() -> Self {
        Self(LetsEncrypt::Production.url().to_owned())
    }

    /// Let's Encrypt's staging environment, for trials: nobody trusts its certificates, and its limits are
    /// wide.
    pub fn lets_encrypt_staging() -> Self {
        Self(LetsEncrypt::Staging.url().to_owned())
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host in it.
    pub fn host(&self) -> &str {
        let authority = self.0.trim_start_matches("https://");
        authority.split('/').next().unwrap_or_default()
    }
}

impl FromStr for DirectoryUrl {
    type Err = BadDirectoryUrl;

    fn from_str(text: &str) -> Result<Self, BadDirectoryUrl> {
        let uri: Uri = text.parse().map_err(|_| BadDirectoryUrl)?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) if !host.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(BadDirectoryUrl),
        }
    }
}

impl fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A customer's account at an authority, to which the ACME account is bound. [`Debug`] does not show the
/// key.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    kid: String,
    hmac: Vec<u8>,
}

impl ExternalAccount {
    /// The account `kid`, and its key as authorities write it: base64url, with or without padding.
    pub fn new(kid: &str, hmac: &str) -> Result<Self, DecodeError> {
        let hmac = BASE64URL_NOPAD.decode(hmac.trim().trim_end_matches('=').as_bytes())?;
        Ok(Self {
            kid: kid.to_owned(),
            hmac,
        })
    }

    pub(super) fn key(&self) -> instant_acme::ExternalAccountKey {
        instant_acme::ExternalAccountKey::new(self.kid.clone(), &self.hmac)
    }
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExternalAccount").field(&self.kid).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_an_https_url() {
        let url: DirectoryUrl = "https://ca.example:14000/dir".parse().expect("a URL");
        assert_eq!(url.host(), "ca.example:14000");
        assert_eq!(url.as_str(), "https://ca.example:14000/dir");
        for bad in [
            "",
            "ca.example",
            "http://ca.example/dir",
            "https://",
            "/dir",
        ] {
            assert_eq!(bad.parse::<DirectoryUrl>(), Err(BadDirectoryUrl), "{bad:?}");
        }
    }

    #[test]
    fn the_key_of_an_external_account_may_have_padding_and_is_never_shown() {
        let padded = ExternalAccount::new("kid-1", "c2VjcmV0IQ==\n").expect("decodes");
        assert_eq!(
            padded,
            ExternalAccount::new("kid-1", "c2VjcmV0IQ").expect("decodes")
        );
        let shown = format!("{padded:?}");
        assert!(
            shown.contains("kid-1") && !shown.contains("secret") && !shown.contains("115"),
            "{shown}"
        );
        assert!(ExternalAccount::new("kid-1", "not base64!").is_err());
    }
}
