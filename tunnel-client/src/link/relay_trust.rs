//! How an agent knows its relay: by exactly one rule, chosen before it dials.
//!
//! 1. A fingerprint that the user gave: nothing else counts.
//! 2. What the file of known relays says about this host and port.
//! 3. A certificate authority, public or the user's own.
//! 4. First sight, where no public authority can vouch or the user wants it so.
//!
//! The rule is chosen anew for each dial, by `RelayTrust::choose`, and `verifier` applies it.

use std::net::IpAddr;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::KeyFingerprint;

use super::known_relays::{Found, Known, KnownRelays, KnownRelaysError};
use crate::relay_addr::RelayAddr;

/// Domains that no public certificate authority signs for (RFC 6761, 6762, 8375).
const LOCAL_DOMAINS: [&str; 5] = ["localhost", "local", "internal", "lan", "home.arpa"];

/// What the user says about the relay's key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayTrust {
    /// Its key has this fingerprint; nothing else counts.
    Pinned(KeyFingerprint),
    /// A public certificate authority vouches for its name.
    PublicCa,
    /// One of these authorities vouches for its name. At least one, each a certificate.
    PrivateCa(Vec<CertificateDer<'static>>),
    /// Whoever answers first is believed, with a warning, and must show the same key from then on.
    FirstUse,
}

/// The one rule of one dial.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// The relay has this key.
    Key(Expected),
    /// A public authority vouches for it.
    PublicAuthority,
    /// One of these authorities vouches for it. Without any, no dial can be made.
    Authority(Vec<CertificateDer<'static>>),
    /// The key that is proved on the connection which wins is the relay's.
    FirstUse,
}

/// A key that this agent has expected already, and will unless the user takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Believed {
    pub(crate) key: KeyFingerprint,
    /// Whether the file of known relays had it. If so, the user takes it back by removing the line.
    pub(crate) recorded: bool,
}

/// A key that is expected, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) key: KeyFingerprint,
    pub(crate) source: Source,
}

/// Who said which key a relay has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The user.
    User,
    /// This line of this file.
    File { path: PathBuf, line: usize },
    /// The relay itself, when this agent first saw it.
    FirstSight,
}

impl RelayTrust {
    /// What holds for a relay at `host` when the user says nothing: a public CA where there can be
    /// one.
    pub fn by_default(host: &str) -> Self {
        if is_local(host) {
            Self::FirstUse
        } else {
            Self::PublicCa
        }
    }

    /// The rule for dialling `relay` now. `believed` is the key that this agent believes by now.
    /// Reads the file, which blocks the thread.
    pub(crate) fn choose(
        &self,
        relay: &RelayAddr,
        known: Option<&KnownRelays>,
        believed: Option<Believed>,
    ) -> Result<Rule, KnownRelaysError> {
        let key = |key, source| Rule::Key(Expected { key, source });
        let known = known.filter(|_| !matches!(self, Self::Pinned(_)));
        let found = match known {
            Some(file) => file.look_up(relay)?,
            None => Found::NoFile,
        };
        if let (
            Some(file),
            Found::Line(Known {
                key: recorded,
                line,
            }),
        ) = (known, found)
        {
            let path = file.path().to_owned();
            return Ok(key(recorded, Source::File { path, line }));
        }
        let taken_back = |old: &Believed| old.recorded && found == Found::NoLine;
        Ok(match self {
            Self::Pinned(pin) => key(*pin, Source::User),
            Self::PublicCa => Rule::PublicAuthority,
            Self::PrivateCa(authorities) => Rule::Authority(authorities.clone()),
            Self::FirstUse => match believed.filter(|old| !taken_back(old)) {
                Some(believed) => key(believed.key, Source::FirstSight),
                None => Rule::FirstUse,
            },
        })
    }
}

/// Whether `host` is an address, or a name that means something in a local network only: no public authority
/// vouches for it.
pub(crate) fn is_local(host: &str) -> bool {
    let Ok(name) = host.parse::<Hostname>() else {
        return host.parse::<IpAddr>().is_ok();
    };
    let above = |domain: &&str| {
        name.as_str()
            .strip_suffix(*domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    name.split_first().is_none() || LOCAL_DOMAINS.iter().any(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay() -> RelayAddr {
        "relay.example".parse().expect("a relay")
    }

    fn key(name: &str) -> KeyFingerprint {
        KeyFingerprint::of_spki(name.as_bytes())
    }

    fn expected(rule: &Rule) -> Option<KeyFingerprint> {
        match rule {
            Rule::Key(expected) => Some(expected.key),
            Rule::PublicAuthority | Rule::Authority(_) | Rule::FirstUse => None,
        }
    }

    #[test]
    fn a_public_name_needs_a_public_ca_and_others_are_believed_on_first_sight() {
        let public = ["relay.example.com", "localhost.example.com", "my-local.com"];
        for host in public {
            assert_eq!(RelayTrust::by_default(host), RelayTrust::PublicCa, "{host}");
        }
        let local = [
            "127.0.0.1",
            "::1",
            "relay",
            "notlocal",
            "relay.local",
            "a.b.home.arpa",
            "x.localhost",
        ];
        for host in local {
            assert_eq!(RelayTrust::by_default(host), RelayTrust::FirstUse, "{host}");
        }
    }

    #[test]
    fn exactly_one_rule_holds_the_pin_before_the_file_before_everything_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KnownRelays::new(folder.path().join("known_relays"));
        let authority = RelayTrust::PrivateCa(vec![CertificateDer::from(b"a ca".to_vec())]);
        let others = [RelayTrust::PublicCa, authority, RelayTrust::FirstUse];
        let choose = |trust: &RelayTrust, believed| {
            let rule = trust.choose(&relay(), Some(&file), believed);
            rule.expect("the file is sound")
        };
        for trust in &others {
            assert_eq!(expected(&choose(trust, None)), None, "{trust:?}");
        }
        let old = |recorded| {
            let key = key("believed");
            Some(Believed { key, recorded })
        };
        for recorded in [false, true] {
            let believed = choose(&RelayTrust::FirstUse, old(recorded));
            assert_eq!(expected(&believed), Some(key("believed")), "no file");
        }
        let other = "other.example".parse().expect("a relay");
        file.record(&other, key("other")).expect("writes");
        let unrecorded = choose(&RelayTrust::FirstUse, old(false));
        assert_eq!(expected(&unrecorded), Some(key("believed")));
        let taken_back = choose(&RelayTrust::FirstUse, old(true));
        assert_eq!(expected(&taken_back), None, "the user removed the line");

        file.record(&relay(), key("recorded")).expect("writes");
        for trust in &others {
            let rule = choose(trust, old(true));
            assert_eq!(expected(&rule), Some(key("recorded")), "{trust:?}");
        }
        let pinned = choose(&RelayTrust::Pinned(key("pinned")), None);
        assert_eq!(expected(&pinned), Some(key("pinned")));
    }

    #[test]
    fn a_file_that_is_not_understood_stops_all_but_a_pin() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KnownRelays::new(folder.path().join("known_relays"));
        std::fs::write(file.path(), "rubbish").expect("writes");
        let choose = |trust: RelayTrust| trust.choose(&relay(), Some(&file), None);
        assert!(choose(RelayTrust::PublicCa).is_err());
        assert!(choose(RelayTrust::FirstUse).is_err());
        assert!(choose(RelayTrust::Pinned(key("pinned"))).is_ok());
    }
}
