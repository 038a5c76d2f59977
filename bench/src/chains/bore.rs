//! bore, whose tunnel is not encrypted. nginx ends the visitor's TLS.

use std::net::SocketAddr;

use e2e::ports;
use e2e::process::{self, folder};
use tokio::process::Command;

use super::chain::Chain;
use super::peers::{Missing, peer};
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

/// The server's port, which can not be chosen.
const CONTROL: u16 = 7835;
/// The client ends if the server does not listen yet.
const WHEN_IT_LISTENS: &str =
    r#"until exec 3<>"/dev/tcp/$SERVER"; do sleep 0.05; done 2>/dev/null; exec "$0" "$@" 3>&-"#;

pub(super) fn start(place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let (mut server, client) = (peer("bore")?, peer("bore")?);
    let port = ports::tcp();
    let ip = place.relay_ip().to_string();
    server.args(["server", "--bind-addr", &ip, "--bind-tunnels", &ip]);
    let (nginx, public) = (origin.tls.ip().to_string(), port.port.to_string());
    let mut waiting = Command::new("bash");
    waiting.args(["-c", WHEN_IT_LISTENS]);
    waiting.arg(client.as_std().get_program());
    waiting.args(["local", &origin.tls.port().to_string()]);
    waiting.args(["--local-host", &nginx, "--to", &ip, "--port", &public]);
    waiting.env("SERVER", format!("{ip}/{CONTROL}"));
    waiting.env("RUST_LOG", "error");
    let relay = process::spawn(place.relay_side(server), folder());
    let agent = process::spawn(place.agent_side(waiting), folder());
    Ok(Chain {
        row: Row::Bore,
        entrance: SocketAddr::new(place.relay_ip(), port.port),
        host: origin::NAME.to_owned(),
        api: None,
        relay: Some(relay),
        agent: Some(agent),
        _ports: vec![port],
    })
}
