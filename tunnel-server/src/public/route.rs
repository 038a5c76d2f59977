//! Where a visitor goes: a pure function of the server name and the protocols on offer.

use first_flight::alert::Alert;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::wire::alpn;

use crate::names::Names;

/// Where a visitor goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the agent with this label, if it is connected.
    Agent(Label),
    /// To this agent too, if it waits for a certificate authority to validate `host`: he is one.
    Challenge {
        /// Whose the name is.
        agent: Label,
        /// The name that is validated.
        host: Hostname,
    },
    /// He is a certificate authority that validates this name, which is the relay's own.
    OwnChallenge(Hostname),
    /// He is no visitor but an agent, which found no other way in than the public port.
    Api,
    /// Away, with this alert.
    Refuse(Alert),
}

/// Decides. An agent that has no name for the relay, only its address, names none.
///
/// Without a name there is no default for visitors: nobody gets a stranger's.
pub fn route(names: &Names, server_name: Option<&str>, offered: &[Vec<u8>]) -> Route {
    let (is_agent, is_challenge) = (offered == [alpn::H2], offered == [alpn::ACME_TLS]);
    let Some(server_name) = server_name else {
        return if is_agent {
            Route::Api
        } else {
            Route::Refuse(Alert::MISSING_EXTENSION)
        };
    };
    let Ok(host) = server_name.parse::<Hostname>() else {
        return Route::Refuse(Alert::UNRECOGNIZED_NAME);
    };
    match names.agent(&host) {
        _ if is_agent && names.is_relay(&host) => Route::Api,
        _ if is_challenge && names.is_relay(&host) => Route::OwnChallenge(host),
        Some(agent) if is_challenge => Route::Challenge { agent, host },
        Some(agent) => Route::Agent(agent),
        None => Route::Refuse(Alert::UNRECOGNIZED_NAME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Suffixes;

    #[test]
    fn a_name_of_ours_goes_to_its_agent_and_nothing_else_anywhere() {
        let suffix = "tunnel.example".parse().expect("a host name");
        let names = Names::new(Suffixes::These(vec![suffix]), 443);
        let id = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let label = id.parse().expect("a label");
        for ours in [
            format!("{id}.tunnel.example"),
            format!("{id}.tunnel.example."),
        ] {
            assert_eq!(
                route(&names, Some(&ours), &[]),
                Route::Agent(label),
                "{ours}"
            );
        }
        assert_eq!(
            route(&names, None, &[]),
            Route::Refuse(Alert::MISSING_EXTENSION)
        );
        for other in [
            "",
            "tunnel.example",
            "a_b.tunnel.example",
            "127.0.0.1",
            "x\ny",
        ] {
            let refused = Route::Refuse(Alert::UNRECOGNIZED_NAME);
            assert_eq!(route(&names, Some(other), &[]), refused, "{other:?}");
        }
    }

    #[test]
    fn an_agent_comes_by_the_relays_own_name_or_none_and_offers_nothing_else() {
        let suffix = "tunnel.example".parse().expect("a host name");
        let own = "relay.example".parse().expect("a host name");
        let names = Names::new(Suffixes::These(vec![suffix]), 443).with_own(vec![own]);
        let agent = [b"qtun-h2/1".to_vec()];
        for name in [None, Some("relay.example"), Some("tunnel.example.")] {
            assert_eq!(route(&names, name, &agent), Route::Api, "{name:?}");
        }
        let more = [agent[0].clone(), b"h2".to_vec()];
        for offered in [&[][..], &[b"h2".to_vec()], &more] {
            let refused = Route::Refuse(Alert::UNRECOGNIZED_NAME);
            assert_eq!(route(&names, Some("relay.example"), offered), refused);
        }
        // A tenant's name is the tenant's, whatever is offered.
        let id = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let host = format!("{id}.tunnel.example");
        let label = id.parse().expect("a label");
        assert_eq!(route(&names, Some(&host), &agent), Route::Agent(label));
    }

    #[test]
    fn who_offers_nothing_but_the_challenge_is_a_certificate_authority_and_nobody_else_is() {
        let suffix = "tunnel.example".parse().expect("a host name");
        let own = "relay.example".parse().expect("a host name");
        let names = Names::new(Suffixes::These(vec![suffix]), 443).with_own(vec![own]);
        let authority = [b"acme-tls/1".to_vec()];
        let id = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let agent = id.parse().expect("a label");
        let host: Hostname = format!("{id}.tunnel.example").parse().expect("a host name");
        for name in [
            format!("{id}.tunnel.example"),
            format!("{id}.TUNNEL.example."),
        ] {
            let host = host.clone();
            let challenge = Route::Challenge { agent, host };
            assert_eq!(route(&names, Some(&name), &authority), challenge, "{name}");
        }
        for name in ["relay.example", "tunnel.example."] {
            let host = name.parse().expect("a host name");
            let challenge = Route::OwnChallenge(host);
            assert_eq!(route(&names, Some(name), &authority), challenge, "{name}");
        }
        for other in ["www.tunnel.example", "other.example", "x\ny"] {
            let refused = Route::Refuse(Alert::UNRECOGNIZED_NAME);
            assert_eq!(route(&names, Some(other), &authority), refused, "{other:?}");
        }
        let nameless = Route::Refuse(Alert::MISSING_EXTENSION);
        assert_eq!(route(&names, None, &authority), nameless);

        let (h2, acme) = (b"h2".to_vec(), authority[0].clone());
        for more in [[h2.clone(), acme.clone()], [acme.clone(), h2]] {
            let visitor = Route::Agent(agent);
            assert_eq!(route(&names, Some(host.as_str()), &more), visitor);
            let refused = Route::Refuse(Alert::UNRECOGNIZED_NAME);
            assert_eq!(route(&names, Some("relay.example"), &more), refused);
        }
    }
}
