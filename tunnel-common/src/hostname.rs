//! Host names, compared the way DNS compares them.

use std::fmt;
use std::str::FromStr;

/// The longest name in text form, without the trailing dot (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;
/// The longest label (RFC 1035, 2.3.4).
const MAX_LABEL_BYTES: usize = 63;
/// The domain of this machine (RFC 6761, 6.3).
const LOOPBACK_DOMAIN: &str = "localhost";

/// A host name: lower case, without a trailing dot, of letters, digits, `-` and `_`.
///
/// It exists only by parsing, so what holds one need not check again. Internationalised names are
/// accepted in their ASCII form (`xn--…`) alone; an IP address literal is not a name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(String);

/// Why a text is no [`Hostname`].
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadHostname {
    /// Nothing, a lone dot, or two dots in a row.
    #[error("a host name must not have an empty label")]
    EmptyLabel,
    /// Longer than DNS allows.
    #[error("a host name has at most 253 bytes, and 63 between two dots")]
    TooLong,
    /// A character that no host name has.
    #[error("a host name is made of letters, digits, '-' and '.'; write others in their xn-- form")]
    BadCharacter,
    /// All digits and dots: an address, not a name.
    #[error("an IP address is not a host name")]
    Address,
}

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label and what stands behind its dot; `None` for a name of one label.
    pub fn split_first(&self) -> Option<(&str, &str)> {
        self.0.split_once('.')
    }
}

impl FromStr for Hostname {
    type Err = BadHostname;

    fn from_str(text: &str) -> Result<Self, BadHostname> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_NAME_BYTES {
            return Err(BadHostname::TooLong);
        }
        for label in text.split('.') {
            if label.is_empty() {
                return Err(BadHostname::EmptyLabel);
            }
            if label.len() > MAX_LABEL_BYTES {
                return Err(BadHostname::TooLong);
            }
            if !label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return Err(BadHostname::BadCharacter);
            }
        }
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(BadHostname::Address);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Whether a host is this machine by its name: `localhost` and all names under it, whatever a resolver
/// would say (RFC 6761, 6.3). Such a name leads to 127.0.0.1 and ::1. Case and one trailing dot do not matter.
pub fn loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    last.eq_ignore_ascii_case(LOOPBACK_DOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_and_what_is_under_it_is_this_machine() {
        for host in ["localhost", "LOCALHOST.", "a.localhost", "a.b.LocalHost"] {
            assert!(loopback(host), "{host}");
        }
        for host in [
            "",
            "a.localhost.example",
            "notlocalhost",
            "127.0.0.1",
            "localhost..",
        ] {
            assert!(!loopback(host), "{host}");
        }
    }

    #[test]
    fn case_and_one_trailing_dot_do_not_matter() {
        let plain: Hostname = "a.example.com".parse().expect("a name");
        assert_eq!("A.Example.COM.".parse(), Ok(plain));
    }

    #[test]
    fn what_is_no_name_says_why() {
        let cases = [
            ("", BadHostname::EmptyLabel),
            (".", BadHostname::EmptyLabel),
            ("a..b", BadHostname::EmptyLabel),
            ("a.b..", BadHostname::EmptyLabel),
            ("a b", BadHostname::BadCharacter),
            ("a\r\nb", BadHostname::BadCharacter),
            ("bücher.de", BadHostname::BadCharacter),
            ("127.0.0.1", BadHostname::Address),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Hostname>(), Err(why), "{text:?}");
        }
        assert_eq!(
            "a".repeat(64).parse::<Hostname>(),
            Err(BadHostname::TooLong)
        );
        assert_eq!(
            "a.".repeat(127)
                .parse::<Hostname>()
                .map(|h| h.as_str().len()),
            Ok(253)
        );
        assert_eq!(
            "aa.".repeat(85).parse::<Hostname>(),
            Err(BadHostname::TooLong)
        );
    }

    #[test]
    fn the_first_label_comes_off() {
        let name: Hostname = "id.tunnel.example".parse().expect("a name");
        assert_eq!(name.split_first(), Some(("id", "tunnel.example")));
        let single: Hostname = "localhost".parse().expect("a name");
        assert_eq!(single.split_first(), None);
    }
}
