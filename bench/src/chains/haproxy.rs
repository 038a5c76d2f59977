//! HAProxy, which reads the server name and passes the bytes on, as our relay does. nginx ends the TLS.

use std::net::SocketAddr;

use e2e::ports;
use e2e::process::{self, folder};

use super::chain::Chain;
use super::peers::{Missing, file, peer};
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

pub(super) fn start(place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let mut command = peer("haproxy")?;
    let (folder, port) = (folder(), ports::tcp());
    let entrance = SocketAddr::new(place.relay_ip(), port.port);
    let configuration = configuration(entrance, origin.tls);
    command.arg("-db").arg("-f");
    command.arg(file(folder.path(), "haproxy.cfg", &configuration));
    Ok(Chain {
        row: Row::Haproxy,
        entrance,
        host: origin::NAME.to_owned(),
        api: None,
        relay: Some(process::spawn(place.relay_side(command), folder)),
        agent: None,
        _ports: vec![port],
    })
}

fn configuration(entrance: SocketAddr, nginx: SocketAddr) -> String {
    let name = origin::NAME;
    format!(
        "global\n  maxconn 9000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n\
         frontend public\n  bind {entrance} backlog 4096\n  tcp-request inspect-delay 5s\n  \
         tcp-request content accept if {{ req_ssl_hello_type 1 }}\n  \
         use_backend nginx if {{ req_ssl_sni -i {name} }}\n\
         backend nginx\n  server nginx {nginx}\n"
    )
}
