//! Which wishes of an agent are granted: pure functions.

use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::{EndpointKind, EndpointRef, Granted, Outcome, Refused, Wanted};

use crate::names::Names;

/// Endpoints of one tunnel: one for the key that the handshake proved, and a second identity.
pub(crate) const MAX_ENDPOINTS: u16 = 2;

/// A wish, and whose name it is for: a key that is proved and admitted, or why there is none.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// What is wished for.
    pub(crate) wish: &'a Wanted,
    /// The key.
    pub(crate) id: Result<ClientId, Refused>,
}

/// Answers all wishes of one tunnel, each with URLs or with the reason why not. Who leads is not known here.
pub(crate) fn grant(names: &Names, claims: &[Claim<'_>]) -> Vec<Granted> {
    let mut served = vec![];
    let mut answer = |claim: &Claim<'_>| {
        let outcome = match urls(names, claim, &served) {
            Ok((id, urls)) => {
                served.push((id, claim.wish.endpoint.clone()));
                Outcome::Urls(urls)
            }
            Err(refused) => Outcome::Refused(refused),
        };
        Granted {
            endpoint: claim.wish.endpoint.clone(),
            leads: false,
            outcome,
        }
    };
    claims.iter().map(&mut answer).collect()
}

fn urls(
    names: &Names,
    claim: &Claim<'_>,
    served: &[(ClientId, EndpointRef)],
) -> Result<(ClientId, Vec<String>), Refused> {
    let id = claim.id.clone()?;
    let hosts = hosts(names, id, claim.wish)?;
    if served.iter().any(|(other, _)| *other == id) {
        return Err(refuse("this relay serves one endpoint for each key"));
    }
    if served
        .iter()
        .any(|(_, endpoint)| *endpoint == claim.wish.endpoint)
    {
        return Err(refuse("two endpoints have the same ref"));
    }
    Ok((id, hosts.iter().map(|host| names.url(host)).collect()))
}

/// The host names that the key `id` gets for this wish.
pub(crate) fn hosts(names: &Names, id: ClientId, wish: &Wanted) -> Result<Vec<Hostname>, Refused> {
    if wish.kind != EndpointKind::Https {
        return Err(refuse("this relay does not serve endpoints of that kind"));
    }
    if wish.port.is_some() {
        return Err(refuse("an https endpoint has no port of its own"));
    }
    let label = id.label();
    let Some(host) = &wish.host else {
        return Ok(names.hosts(label).collect());
    };
    match host.parse::<Hostname>() {
        Ok(host) if names.agent(&host) == Some(label) => Ok(vec![host]),
        _ => Err(refuse(&format!(
            "this relay serves the id {label} under {}; leave --domain-suffix away or name one of \
             these",
            names.announced()
        ))),
    }
}

/// Too many wishes: nobody even looks at the key.
pub(crate) fn too_many() -> Refused {
    refuse(&format!(
        "this relay serves {MAX_ENDPOINTS} endpoints of one agent"
    ))
}

fn refuse(text: &str) -> Refused {
    Refused::for_good(Code::Policy, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Suffixes;

    fn names() -> Names {
        let suffixes = ["a.example", "b.example"].map(|s| s.parse().expect("a host name"));
        Names::new(Suffixes::These(suffixes.into()), 443)
    }

    fn id(name: &str) -> ClientId {
        ClientId::of_spki(name.as_bytes())
    }

    fn wish(endpoint: &str, host: Option<String>) -> Wanted {
        let endpoint = EndpointRef::try_from(endpoint.to_owned()).expect("a ref");
        Wanted {
            endpoint,
            kind: EndpointKind::Https,
            host,
            port: None,
            proof: None,
            orders: false,
        }
    }

    /// The outcomes of wishes, each by this key.
    fn outcomes(wishes: &[(&str, Wanted)]) -> Vec<Outcome> {
        let claim = |(key, wish)| Claim {
            wish,
            id: Ok(id(key)),
        };
        let claims: Vec<_> = wishes
            .iter()
            .map(|(key, wish)| claim((key, wish)))
            .collect();
        let granted = grant(&names(), &claims);
        granted.into_iter().map(|granted| granted.outcome).collect()
    }

    fn refusal(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Refused(refused) => &refused.text,
            Outcome::Urls(urls) => panic!("granted: {urls:?}"),
        }
    }

    fn urls(key: &str) -> Outcome {
        let label = id(key).label();
        let urls = ["a.example", "b.example"].map(|s| format!("https://{label}.{s}"));
        Outcome::Urls(urls.into())
    }

    #[test]
    fn without_a_host_a_key_gets_its_name_under_every_suffix() {
        let outcomes = outcomes(&[
            ("key", wish("main", None)),
            ("second", wish("second", None)),
        ]);
        assert_eq!(outcomes, [urls("key"), urls("second")]);
    }

    #[test]
    fn with_a_host_it_gets_that_one_if_it_is_its_own() {
        let own = format!("{}.B.example", id("key").label());
        let outcomes = outcomes(&[("key", wish("main", Some(own.clone())))]);
        let url = format!("https://{}", own.to_lowercase());
        assert_eq!(outcomes, [Outcome::Urls(vec![url])]);
    }

    #[test]
    fn no_key_gets_the_name_of_another_nor_a_foreign_suffix() {
        let hosts = [
            format!("{}.a.example", id("another").label()),
            format!("{}.c.example", id("key").label()),
            "..".into(),
        ];
        for host in hosts {
            let outcomes = outcomes(&[("key", wish("main", Some(host)))]);
            assert!(refusal(&outcomes[0]).contains("a.example, b.example"));
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
        let outcomes = outcomes(&[
            ("key", quantum),
            ("key", port),
            ("key", wish("main", None)),
            ("key", wish("second", None)),
            ("other", wish("main", None)),
        ]);
        assert!(refusal(&outcomes[0]).contains("kind"));
        assert!(refusal(&outcomes[1]).contains("port"));
        assert_eq!(outcomes[2], urls("key"));
        assert!(refusal(&outcomes[3]).contains("one endpoint for each key"));
        assert!(refusal(&outcomes[4]).contains("same ref"));
    }

    #[test]
    fn a_key_that_was_not_admitted_is_told_why() {
        let wish = wish("main", None);
        let stranger = Refused::for_good(Code::Refused, "unknown");
        let claim = Claim {
            wish: &wish,
            id: Err(stranger.clone()),
        };
        let granted = grant(&names(), &[claim]);
        assert_eq!(granted[0].outcome, Outcome::Refused(stranger));
    }
}
