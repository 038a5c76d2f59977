//! Which host names are ours, and what the URLs look like.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;

use crate::config::Suffixes;

/// The port that a URL with `https://` does not spell out.
const HTTPS_PORT: u16 = 443;

/// The names under which this relay serves.
#[derive(Debug)]
pub struct Names {
    suffixes: Suffixes,
    announced: Vec<Hostname>,
    own: Vec<Hostname>,
    port: u16,
}

impl Names {
    /// Names under `suffixes`, at the public port `port`.
    pub fn new(suffixes: Suffixes, port: u16) -> Self {
        let announced = match &suffixes {
            Suffixes::Any => vec!["localhost".parse().expect("a host name")],
            Suffixes::These(suffixes) => suffixes.clone(),
        };
        Self {
            suffixes,
            announced,
            own: vec![],
            port,
        }
    }

    /// The same with these names for the relay itself.
    pub fn with_own(self, own: Vec<Hostname>) -> Self {
        Self { own, ..self }
    }

    /// Whether `host` is the relay itself: a name that the operator says, or a suffix without an id.
    /// In development any name may be, as any suffix may.
    pub(crate) fn is_relay(&self, host: &Hostname) -> bool {
        let is_suffix = match &self.suffixes {
            Suffixes::Any => self.agent(host).is_none(),
            Suffixes::These(suffixes) => suffixes.contains(host),
        };
        is_suffix || self.own.contains(host)
    }

    /// The port of the URLs.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The agent that `host` stands for: exactly `<id>.<suffix>`, the suffix matched whole.
    pub(crate) fn agent(&self, host: &Hostname) -> Option<Label> {
        let (first, rest) = host.split_first()?;
        let ours = match &self.suffixes {
            Suffixes::Any => true,
            Suffixes::These(suffixes) => suffixes.iter().any(|suffix| suffix.as_str() == rest),
        };
        if ours { first.parse().ok() } else { None }
    }

    /// The host names of an agent, as announced. A suffix that leaves no room for an id has none.
    pub(crate) fn hosts(&self, label: Label) -> impl Iterator<Item = Hostname> {
        self.announced
            .iter()
            .filter_map(move |suffix| format!("{label}.{suffix}").parse().ok())
    }

    /// The URL of a host.
    pub(crate) fn url(&self, host: &Hostname) -> String {
        match self.port {
            HTTPS_PORT => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// The announced domains, for messages.
    pub(crate) fn announced(&self) -> String {
        let names: Vec<_> = self.announced.iter().map(Hostname::as_str).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn host(text: &str) -> Hostname {
        text.parse().expect("a host name")
    }

    fn production() -> Names {
        let suffixes = ["tunnel.example", "second.example"].map(host);
        Names::new(Suffixes::These(suffixes.into()), 443)
    }

    #[test]
    fn only_an_id_before_exactly_an_allowed_suffix_is_ours() {
        let names = production();
        for ours in ["tunnel.example", "second.example", "TUNNEL.example."] {
            assert!(
                names.agent(&host(&format!("{ID}.{ours}"))).is_some(),
                "{ours}"
            );
        }
        let others = [
            format!("x.{ID}.tunnel.example"),
            format!("{ID}.tunnel.example.evil.com"),
            format!("{ID}.eviltunnel.example"),
            format!("{ID}.third.example"),
            format!("{ID}x.tunnel.example"),
            "tunnel.example".to_owned(),
            ID.to_owned(),
            "www.tunnel.example".to_owned(),
        ];
        for other in others {
            assert_eq!(names.agent(&host(&other)), None, "{other}");
        }
    }

    #[test]
    fn development_takes_any_suffix_but_still_needs_an_id_and_a_suffix() {
        let names = Names::new(Suffixes::Any, 8443);
        assert!(names.agent(&host(&format!("{ID}.localhost"))).is_some());
        assert!(names.agent(&host(&format!("{ID}.what.ever"))).is_some());
        assert_eq!(names.agent(&host(ID)), None);
        assert_eq!(names.agent(&host("localhost")), None);
    }

    #[test]
    fn a_url_spells_out_any_port_but_443() {
        let label: Label = ID.parse().expect("a label");
        let names = production();
        let urls: Vec<_> = names.hosts(label).map(|host| names.url(&host)).collect();
        let expected = ["tunnel.example", "second.example"].map(|s| format!("https://{ID}.{s}"));
        assert_eq!(urls, expected);
        let names = Names::new(Suffixes::Any, 8443);
        assert_eq!(names.url(&host("x.localhost")), "https://x.localhost:8443");
    }
}
