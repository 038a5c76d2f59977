//! Where a visitor goes: a pure function of the server name and the protocols on offer.

use first_flight::alert::Alert;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;
use tunnel_common::wire::alpn;

use crate::names::Names;

/// Where a visitor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the agent with this label, if it is connected.
    Agent(Label),
    /// He is no visitor but an agent, which found no other way in than the public port.
    Api,
    /// Away, with this alert.
    Refuse(Alert),
}

/// Decides. An agent that has no name for the relay, only its address, names none.
///
/// Without a name there is no default for visitors: nobody gets a stranger's.
pub(crate) fn route(names: &Names, server_name: Option<&str>, offered: &[Vec<u8>]) -> Route {
    let is_agent = offered == [alpn::H2];
    let Some(server_name) = server_name else {
        return if is_agent {
            Route::Api
        } else {
            Route::Refuse(Alert::MISSING_EXTENSION)
        };
    };
    let host: Option<Hostname> = server_name.parse().ok();
    match host {
        Some(host) if is_agent && names.is_relay(&host) => Route::Api,
        Some(host) => match names.agent(&host) {
            Some(label) => Route::Agent(label),
            None => Route::Refuse(Alert::UNRECOGNIZED_NAME),
        },
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
}
