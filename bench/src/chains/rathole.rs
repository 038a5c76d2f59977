//! rathole, its tunnel in TLS. nginx ends the visitor's TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use e2e::authority::authority;
use e2e::ports;
use e2e::process::{self, folder};

use super::chain::Chain;
use super::peers::{Missing, file, peer};
use crate::origin::{self, Origin};
use crate::place::Place;
use crate::row::Row;

/// What the tunnel's certificate is for.
const HOST: &str = "rathole.test";

pub(super) fn start(place: &Place, origin: &Origin) -> Result<Chain, Missing> {
    let (mut server, mut client) = (peer("rathole")?, peer("rathole")?);
    let (control, public) = (ports::tcp(), ports::tcp());
    let ip = place.relay_ip();
    let at = |port| SocketAddr::new(ip, port);
    let folder = folder();
    identity(folder.path());
    let write = |name, text: String| file(folder.path(), name, &text);
    let (entrance, control_at) = (at(public.port), at(control.port));
    server.arg("--server");
    server.arg(write("server.toml", on_server(control_at, entrance)));
    client.arg("--client");
    client.arg(write("client.toml", on_client(control_at, origin.tls)));
    Ok(Chain {
        row: Row::Rathole,
        entrance,
        host: origin::NAME.to_owned(),
        api: None,
        relay: Some(process::spawn(
            place.relay_side(server),
            Arc::clone(&folder),
        )),
        agent: Some(process::spawn(place.agent_side(client), folder)),
        _ports: vec![control, public],
    })
}

/// The tunnel's certificate, in the form that rathole takes.
fn identity(folder: &Path) {
    authority().certify(folder, &[HOST]);
    let made = Command::new("openssl")
        .current_dir(folder)
        .args(["pkcs12", "-export", "-out", "identity.pfx", "-passout"])
        .args(["pass:none", "-inkey", "key.pem", "-in", "cert.pem"])
        .args(["-certfile", "ca.pem"])
        .status();
    assert!(made.expect("openssl").success(), "no PKCS #12");
}

fn on_server(control: SocketAddr, entrance: SocketAddr) -> String {
    format!(
        "[server]\nbind_addr = \"{control}\"\ndefault_token = \"none\"\n\
         [server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"identity.pfx\"\npkcs12_password = \"none\"\n\
         [server.services.web]\nbind_addr = \"{entrance}\"\n"
    )
}

fn on_client(control: SocketAddr, nginx: SocketAddr) -> String {
    format!(
        "[client]\nremote_addr = \"{control}\"\ndefault_token = \"none\"\n\
         [client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"ca.pem\"\nhostname = \"{HOST}\"\n\
         [client.services.web]\nlocal_addr = \"{nginx}\"\n"
    )
}
