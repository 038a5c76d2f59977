//! Two relays behind one name, as a DNS entry with two addresses has them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::KeyPair;
use tunnel_client::config::Config;
use tunnel_client::resolve::{Resolve, Resolving};
use tunnel_server::config::Config as RelayConfig;

use crate::agent;
use crate::ports;
use crate::relay::{Relay, relay_identity, relay_with};
use crate::transport::Over;

/// The name of both.
const NAME: &str = "relays.example";

/// Two relays with one key and one port, at two addresses.
#[derive(Debug)]
pub struct TwoRelays {
    /// The one that the name leads to first.
    pub first: Relay,
    /// The other.
    pub second: Relay,
}

/// Both, the first with a changed configuration.
pub async fn two_relays(change: impl FnOnce(&mut RelayConfig)) -> TwoRelays {
    let identity = relay_identity();
    let first = relay_with(|config| {
        config.identity = identity.clone().into();
        change(config);
    });
    let first = first.await;
    let second = relay_with(|config| {
        config.identity = identity.into();
        config.bind_addr = ports::ADDRESS.into();
        config.api_port = first.api.port();
        config.pub_port = first.public.port();
    });
    TwoRelays {
        second: second.await,
        first,
    }
}

impl TwoRelays {
    /// The configuration of an agent that knows only the name of both.
    pub fn agent(&self, over: Over, key: KeyPair, origin: SocketAddr) -> Config {
        let mut config = agent::config(over, &self.first, key, origin);
        let relay = format!("{NAME}:{}", self.first.api.port());
        config.relays[0].address = relay.parse().expect("an address");
        config.resolver = Arc::new(Both);
        config
    }
}

/// The addresses of both, the first relay's first.
#[derive(Debug)]
struct Both;

impl Resolve for Both {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Resolving<'a> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (ports::ADDRESS, port).into(),
            ],
        };
        Box::pin(std::future::ready(Ok(addresses)))
    }
}
