//! What a relay says that it granted: a stranger's words, which end up on standard output.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::wire::frame::{EndpointRef, Granted, Outcome};

use super::control::ControlFailure;

/// The most URLs of one grant: a relay has a few ports, and each is shown and remembered.
const MAX_URLS: usize = 16;

/// A URL that is ours, and so may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnUrl {
    /// The whole.
    pub(crate) url: String,
    /// Its host.
    pub(crate) host: Hostname,
}

/// The URLs at which the endpoint `name` is granted, or why it is not.
///
/// A URL that is no `https://<id>.<domain>[:port]` for our own id is the relay's fault: it would be
/// shown to people and read by scripts.
pub(crate) fn urls(
    name: &EndpointRef,
    id: Label,
    granted: &[Granted],
) -> Result<Vec<OwnUrl>, ControlFailure> {
    match granted
        .iter()
        .find(|grant| grant.endpoint == *name)
        .map(|grant| &grant.outcome)
    {
        Some(Outcome::Urls(urls)) if urls.len() > MAX_URLS => {
            Err(ControlFailure::Protocol("the relay grants too many URLs"))
        }
        Some(Outcome::Urls(urls)) if !urls.is_empty() => {
            let urls: Option<_> = urls.iter().map(|url| own_url(url, id)).collect();
            urls.ok_or(ControlFailure::Protocol(
                "the relay grants a URL that is not ours",
            ))
        }
        Some(Outcome::Refused(refused)) => Err(ControlFailure::Refused(refused.clone())),
        _ => Err(ControlFailure::Protocol("the relay granted nothing")),
    }
}

/// Whether this process is the one that orders certificates for the endpoint `name`.
pub(crate) fn leads(name: &EndpointRef, granted: &[Granted]) -> bool {
    let mut grants = granted.iter();
    grants.any(|grant| grant.endpoint == *name && grant.leads)
}

fn own_url(url: &str, id: Label) -> Option<OwnUrl> {
    let rest = url.strip_prefix("https://")?;
    let (host, port) = rest
        .split_once(':')
        .map_or((rest, None), |(host, port)| (host, Some(port)));
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let port_is_one = port.is_none_or(|port| digits(port) && port.parse::<u16>().is_ok());
    let host: Hostname = host.parse().ok()?;
    let (first, _) = host.split_first()?;
    let ours = port_is_one && first.parse() == Ok(id);
    ours.then(|| OwnUrl {
        url: url.to_owned(),
        host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn granted(name: &str, urls: &[&str]) -> Granted {
        let endpoint = EndpointRef::try_from(name.to_owned()).expect("a ref");
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Granted {
            endpoint,
            leads: false,
            outcome: Outcome::Urls(urls),
        }
    }

    fn of(granted: &[Granted]) -> Result<Vec<OwnUrl>, ControlFailure> {
        urls(
            &EndpointRef::default(),
            ID.parse().expect("a label"),
            granted,
        )
    }

    #[test]
    fn the_grant_of_this_endpoint_is_taken_wherever_it_stands() {
        let url = format!("https://{ID}.example.com:8443");
        let grants = [
            granted("other", &["https://x.example"]),
            granted("main", &[&url]),
        ];
        let host = format!("{ID}.example.com").parse().expect("a host name");
        assert_eq!(of(&grants).expect("granted"), [OwnUrl { url, host }]);
    }

    #[test]
    fn a_url_that_is_not_ours_is_never_shown() {
        let bad = [
            format!("https://{ID}.example.com\nID: other"),
            format!("https://{ID}.example.com:99999"),
            format!("https://{ID}.example.com/path"),
            format!("https://{ID}.example.com:+443"),
            format!("http://{ID}.example.com"),
            "https://bbbbbbbbbbbbbbbbbbbbbbbbba.example.com".to_owned(),
            format!("https://{ID}"),
            format!("https://{ID}.exam ple.com"),
            "\u{1b}[31m".to_owned(),
        ];
        for url in bad {
            let refused = of(&[granted("main", &[&url])]);
            assert!(
                matches!(refused, Err(ControlFailure::Protocol(_))),
                "{url:?}"
            );
        }
    }

    #[test]
    fn a_grant_has_sixteen_urls_at_most() {
        let url = format!("https://{ID}.example.com");
        let urls = [url.as_str(); MAX_URLS + 1];
        let taken = of(&[granted("main", &urls[1..])]).expect("granted");
        assert_eq!(taken.len(), MAX_URLS);
        let refused = of(&[granted("main", &urls)]);
        assert!(matches!(refused, Err(ControlFailure::Protocol(_))));
    }

    #[test]
    fn nothing_granted_is_the_relays_fault_and_no_reason_to_end() {
        for grants in [
            vec![],
            vec![granted("main", &[])],
            vec![granted("other", &["x"])],
        ] {
            assert!(matches!(of(&grants), Err(ControlFailure::Protocol(_))));
        }
    }
}
