//! Where a visitor goes: a pure function of the server name.

use first_flight::alert::Alert;
use tunnel_common::identity::Label;

use crate::names::Names;

/// Where a visitor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the agent with this label, if it is connected.
    Agent(Label),
    /// Away, with this alert.
    Refuse(Alert),
}

/// Decides by the name alone. Without one there is no default: nobody gets a stranger's visitors.
pub(crate) fn route(names: &Names, server_name: Option<&str>) -> Route {
    let Some(server_name) = server_name else {
        return Route::Refuse(Alert::MISSING_EXTENSION);
    };
    let host = server_name.parse().ok();
    match host.and_then(|host| names.agent(&host)) {
        Some(label) => Route::Agent(label),
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
            assert_eq!(route(&names, Some(&ours)), Route::Agent(label), "{ours}");
        }
        assert_eq!(route(&names, None), Route::Refuse(Alert::MISSING_EXTENSION));
        for other in [
            "",
            "tunnel.example",
            "a_b.tunnel.example",
            "127.0.0.1",
            "x\ny",
        ] {
            let refused = Route::Refuse(Alert::UNRECOGNIZED_NAME);
            assert_eq!(route(&names, Some(other)), refused, "{other:?}");
        }
    }
}
