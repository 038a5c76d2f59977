//! bore, whose tunnel is not encrypted. nginx ends the visitor's TLS.

use std::net::SocketAddr;

use e2e::process::{self, folder};
use tokio::time::sleep;

use super::chain::Chain;
use super::start::{Missing, PAUSE, free_ports, peer};
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

/// Its client ends if the server does not listen yet, and is started again then.
pub(super) async fn start(place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let mut command = peer("bore")?;
    let [port] = free_ports();
    let ip = place.relay_ip().to_string();
    command.args(["server", "--bind-addr", &ip, "--bind-tunnels", &ip]);
    let relay = process::spawn(place.relay_side(command), folder());
    let (nginx, public) = (origin.tls.ip().to_string(), port.port.to_string());
    let agent = loop {
        let mut command = peer("bore")?;
        command.args(["local", &origin.tls.port().to_string()]);
        command.args(["--local-host", &nginx, "--to", &ip, "--port", &public]);
        let mut agent = process::spawn(place.agent_side(command), folder());
        sleep(PAUSE).await;
        if agent.runs() {
            break agent;
        }
    };
    Ok(Chain {
        row: Row::Bore,
        entrance: SocketAddr::new(place.relay_ip(), port.port),
        host: origin::NAME.to_owned(),
        relay: Some(relay),
        agent: Some(agent),
        ports: vec![port],
    })
}
