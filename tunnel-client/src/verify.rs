//! Whether it is really the agent who answers at its public URL.
//!
//! The name begins with the id, which is the beginning of the SHA-256 of the agent's key. Whoever answers there
//! signs the handshake with the key in his certificate. So anybody can compare the two, and needs nobody's word.
//!
//! It begins as a browser's visit does, so that it is not seen at the first glance for what it is. Whoever looks
//! closer can tell it, by the fingerprint of our TLS or the address that we come from, and lie to others only:
//! that is not seen.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustls::AlertDescription::NoApplicationProtocol;
use rustls::pki_types::CertificateDer;
use tunnel_common::acme::dial::Dial;
use tunnel_common::acme::probe::{self, NotShown};
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{KeyFingerprint, Label};

use crate::host_port::split_host_port;

/// What browsers offer.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The port of a URL that names none.
const HTTPS_PORT: u16 = 443;

/// An agent's public URL, `https://<id>.<domain>[:port][/…]`, with or without the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    host: Hostname,
    port: u16,
    id: Label,
}

/// Why a text is no [`PublicUrl`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadPublicUrl {
    /// Another scheme, or no host.
    #[error("an agent's public URL is written https://<id>.<domain>, perhaps with :port")]
    Form,
    /// Its name is no agent's.
    #[error("the name in an agent's public URL begins with its id, 26 characters of base32")]
    NoId,
}

impl PublicUrl {
    /// The name.
    pub fn host(&self) -> &Hostname {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whose name it is.
    pub fn id(&self) -> Label {
        self.id
    }
}

impl FromStr for PublicUrl {
    type Err = BadPublicUrl;

    fn from_str(text: &str) -> Result<Self, BadPublicUrl> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
            Some(_) => return Err(BadPublicUrl::Form),
            None => text,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, port) = split_host_port(&rest[..end]).ok_or(BadPublicUrl::Form)?;
        let host: Hostname = host.parse().map_err(|_| BadPublicUrl::NoId)?;
        let (first, _) = host.split_first().ok_or(BadPublicUrl::NoId)?;
        Ok(Self {
            id: first.parse().map_err(|_| BadPublicUrl::NoId)?,
            host,
            port: port.unwrap_or(HTTPS_PORT),
        })
    }
}

/// The URL in one spelling, without a path.
impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            HTTPS_PORT => write!(f, "https://{}", self.host),
            port => write!(f, "https://{}:{port}", self.host),
        }
    }
}

/// Who answers at a public URL.
#[derive(Debug)]
pub enum Verdict {
    /// The agent itself: whoever answers has the key that the name is made of.
    True {
        /// Its id.
        label: Label,
    },
    /// Somebody with another key.
    Lying {
        /// Whose name it is.
        expected: Label,
        /// The key of whoever answers.
        shown: KeyFingerprint,
    },
    /// Nobody who could be asked.
    Unknown {
        /// Why not.
        why: NotShown,
    },
}

/// Visits `url` as far as the handshake, with the protocols that browsers offer, and compares the key with the name. Takes 40 s at
/// most; dropping the future gives it up.
pub async fn verify(dial: &dyn Dial, url: &PublicUrl) -> Verdict {
    let shown = match shown(dial, url).await {
        Ok(certificate) => key_of(&certificate, url),
        Err(why) => Err(why),
    };
    match shown {
        Ok(key) if key.label() == url.id => Verdict::True { label: url.id },
        Ok(shown) => Verdict::Lying {
            expected: url.id,
            shown,
        },
        Err(why) => Verdict::Unknown { why },
    }
}

/// An agent that knows none of the usual protocols takes whoever asks for none.
async fn shown(dial: &dyn Dial, url: &PublicUrl) -> Result<CertificateDer<'static>, NotShown> {
    match probe::shown(dial, &url.host, url.port, &ALPN).await {
        Err(NotShown::NoTls { source, .. }) if is_about_protocol(&source) => {
            probe::shown(dial, &url.host, url.port, &[]).await
        }
        shown => shown,
    }
}

fn is_about_protocol(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        tls,
        Some(rustls::Error::AlertReceived(NoApplicationProtocol))
    )
}

fn key_of(certificate: &CertificateDer<'_>, url: &PublicUrl) -> Result<KeyFingerprint, NotShown> {
    KeyFingerprint::of_certificate(certificate).map_err(|error| NotShown::NoTls {
        host: url.host.clone(),
        port: url.port,
        source: io::Error::other(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_public_url_is_taken_however_it_is_pasted() {
        let cases = [
            ("https://{}.t.example", "https://{}.t.example"),
            ("{}.t.example", "https://{}.t.example"),
            ("HTTPS://{}.T.Example.:443/", "https://{}.t.example"),
            (
                "https://{}.localhost:8443/a?b#c",
                "https://{}.localhost:8443",
            ),
            ("{}.localhost:8443", "https://{}.localhost:8443"),
        ];
        for (text, shown) in cases {
            let url: PublicUrl = text.replace("{}", ID).parse().expect(text);
            assert_eq!(url.to_string(), shown.replace("{}", ID));
            assert_eq!(url.id().to_string(), ID);
        }
    }

    #[test]
    fn what_names_no_agent_is_not_taken() {
        let cases = [
            ("https://relay.example", BadPublicUrl::NoId),
            ("https://{}", BadPublicUrl::NoId),
            ("https://www.{}.example", BadPublicUrl::NoId),
            ("https://127.0.0.1:8443", BadPublicUrl::NoId),
            ("http://{}.t.example", BadPublicUrl::Form),
            ("https://me@{}.t.example", BadPublicUrl::Form),
            ("https://{}.t.example:0", BadPublicUrl::Form),
            ("https://", BadPublicUrl::Form),
            ("", BadPublicUrl::Form),
        ];
        for (text, why) in cases {
            let parsed = text.replace("{}", ID).parse::<PublicUrl>();
            assert_eq!(parsed, Err(why), "{text}");
        }
    }
}
