//! Which wishes of an agent are granted: a pure function.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{EndpointKind, EndpointRef, Granted, Outcome, Refused, Wanted};

use crate::names::Names;

/// Endpoints of one tunnel: its key has one name.
pub(crate) const MAX_ENDPOINTS: u16 = 1;

/// Answers the wishes of the agent `id`, each with URLs or with the reason why not.
pub(crate) fn grant(names: &Names, id: ClientId, wanted: &[Wanted]) -> Vec<Granted> {
    let mut room = MAX_ENDPOINTS;
    let mut answer = |wish: &Wanted| {
        let outcome = match urls(names, id, wish) {
            Ok(_) if room == 0 => refuse("this relay serves one endpoint for each key"),
            Ok(urls) => {
                room -= 1;
                Outcome::Urls(urls)
            }
            Err(refusal) => refusal,
        };
        Granted {
            endpoint: wish.endpoint.clone(),
            outcome,
        }
    };
    wanted.iter().map(&mut answer).collect()
}

/// The endpoint that visits are for, if any was granted.
pub(crate) fn granted_endpoint(granted: &[Granted]) -> Option<&EndpointRef> {
    let urls = |grant: &&Granted| matches!(grant.outcome, Outcome::Urls(_));
    granted.iter().find(urls).map(|grant| &grant.endpoint)
}

fn urls(names: &Names, id: ClientId, wish: &Wanted) -> Result<Vec<String>, Outcome> {
    if wish.kind != EndpointKind::Https {
        return Err(refuse("this relay does not serve endpoints of that kind"));
    }
    if wish.port.is_some() {
        return Err(refuse("an https endpoint has no port of its own"));
    }
    let label = id.label();
    let Some(host) = &wish.host else {
        return Ok(names.hosts(label).map(|host| names.url(&host)).collect());
    };
    match host.parse::<Hostname>() {
        Ok(host) if names.agent(&host) == Some(label) => Ok(vec![names.url(host.as_str())]),
        _ => Err(refuse(&format!(
            "this relay serves the id {label} under {}; leave --domain-suffix away or name one of \
             these",
            names.announced()
        ))),
    }
}

fn refuse(text: &str) -> Outcome {
    Outcome::Refused(Refused::for_good(Code::Policy, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Suffixes;

    fn names() -> Names {
        let suffixes = ["a.example", "b.example"].map(|s| s.parse().expect("a host name"));
        Names::new(Suffixes::These(suffixes.into()), 443)
    }

    fn id() -> ClientId {
        ClientId::of_spki(b"a key")
    }

    fn wish(endpoint: &str, host: Option<String>) -> Wanted {
        let endpoint = EndpointRef::try_from(endpoint.to_owned()).expect("a ref");
        Wanted {
            endpoint,
            kind: EndpointKind::Https,
            host,
            port: None,
        }
    }

    fn refusal(granted: &Granted) -> &str {
        match &granted.outcome {
            Outcome::Refused(refused) => &refused.text,
            Outcome::Urls(urls) => panic!("granted: {urls:?}"),
        }
    }

    #[test]
    fn without_a_host_an_agent_gets_its_name_under_every_suffix() {
        let granted = grant(&names(), id(), &[wish("main", None)]);
        let urls = ["a.example", "b.example"].map(|s| format!("https://{}.{s}", id().label()));
        assert_eq!(granted[0].outcome, Outcome::Urls(urls.into()));
        assert_eq!(
            granted_endpoint(&granted).map(EndpointRef::as_str),
            Some("main")
        );
    }

    #[test]
    fn with_a_host_it_gets_that_one_if_it_is_its_own() {
        let own = format!("{}.B.example", id().label());
        let granted = grant(&names(), id(), &[wish("main", Some(own.clone()))]);
        let url = format!("https://{}", own.to_lowercase());
        assert_eq!(granted[0].outcome, Outcome::Urls(vec![url]));
    }

    #[test]
    fn no_agent_gets_the_name_of_another_nor_a_foreign_suffix() {
        let other = ClientId::of_spki(b"another key").label();
        let hosts = [
            format!("{other}.a.example"),
            format!("{}.c.example", id().label()),
            "..".into(),
        ];
        for host in hosts {
            let granted = grant(&names(), id(), &[wish("main", Some(host))]);
            assert!(refusal(&granted[0]).contains("a.example, b.example"));
            assert_eq!(granted_endpoint(&granted), None);
        }
    }

    #[test]
    fn what_this_relay_does_not_have_is_refused_and_the_rest_granted() {
        let quantum = Wanted {
            kind: EndpointKind::Unknown,
            ..wish("quantum", None)
        };
        let port = Wanted {
            port: Some(5432),
            ..wish("port", None)
        };
        let wishes = [quantum, port, wish("main", None), wish("second", None)];
        let granted = grant(&names(), id(), &wishes);
        assert!(refusal(&granted[0]).contains("kind"));
        assert!(refusal(&granted[1]).contains("port"));
        assert!(refusal(&granted[3]).contains("one endpoint"));
        assert_eq!(
            granted_endpoint(&granted).map(EndpointRef::as_str),
            Some("main")
        );
    }
}
