//! Names in every spelling: what parses is shown as what it was parsed from, or as the one spelling
//! that stands for it; and a log line stays one line.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use tunnel_common::escape::{Escaped, MAX_LOGGED_BYTES};
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::{KeyFingerprint, Label};
use tunnel_common::wire::frame::{EndpointRef, Instance};

use crate::verdict::Verdict;

/// Checks the text in `input`. Taken is what is a name of some kind.
pub fn check(input: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(input);
    assert_is_one_line(&text);
    let host = parsed::<Hostname>(&text);
    if let Some(host) = &host {
        let plain = text.strip_suffix('.').unwrap_or(&text);
        assert_eq!(host.as_str(), plain.to_ascii_lowercase());
    }
    // These have one spelling.
    let label = parsed::<Label>(&text).map(|label| label.to_string());
    let fingerprint = parsed::<KeyFingerprint>(&text).map(|key| key.to_string());
    let endpoint = EndpointRef::try_from(text.to_string())
        .ok()
        .map(String::from);
    let instance = Instance::try_from(text.to_string()).ok().map(String::from);
    let names = [label, fingerprint, endpoint, instance];
    for name in names.iter().flatten() {
        assert_eq!(*name, text);
    }
    if host.is_some() || names.iter().any(Option::is_some) {
        Verdict::Taken
    } else {
        Verdict::Refused
    }
}

fn parsed<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let again = value.to_string().parse().ok();
    assert_eq!(again.as_ref(), Some(&value));
    Some(value)
}

fn assert_is_one_line(text: &str) {
    let shown = Escaped(text).to_string();
    assert!(shown.len() <= MAX_LOGGED_BYTES + "…".len());
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}
