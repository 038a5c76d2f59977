//! Connections to whatever the agent dials besides its relays and its local service: a certificate authority,
//! its own public name.
//!
//! 1. Ask whether a proxy holds for the host.
//! 2. Without one: find the addresses, race them a little apart.
//! 3. With one: let the proxy connect, to the name or, where it does not look names up, to each address.
//!
//! Which names are its own the agent knows from its relays, which must not lead it into the network that it is
//! in: such names may be kept to public addresses.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tunnel_common::acme::dial::{Dial, Dialling};
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::Label;

use self::public::is_public;
use crate::proxy::gateway::Gateway;
use crate::proxy::outbound::OutboundProxy;
use crate::proxy::target::Target;
use crate::race::{HEAD_START, race};
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;
use crate::tcp::{self, within};

mod public;

/// The end of a dial that its caller has forgotten. Whoever waits for one has less patience.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which proxy holds for a host, as a function: an error is why that can not be said, in words for the user.
type Rule = dyn Fn(&RelayAddr) -> io::Result<Option<OutboundProxy>> + Send + Sync;

/// Which proxy holds for which host. Cheap to clone; by default there is none.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Rule>>);

impl Proxies {
    /// Whatever `rule` says of a host and a port. It is asked before each dial, and must not block. Where it
    /// fails nothing is dialled: the way around a proxy is nobody's wish.
    pub fn by(
        rule: impl Fn(&RelayAddr) -> io::Result<Option<OutboundProxy>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(rule)))
    }

    /// The proxy towards this host and port.
    pub fn towards(&self, target: &RelayAddr) -> io::Result<Option<OutboundProxy>> {
        match &self.0 {
            Some(rule) => rule(target),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(_) => "Proxies(by a rule)",
            None => "Proxies(none)",
        })
    }
}

/// Dials hosts by their names, through a proxy where one holds. A dial ends after 60 s at the latest;
/// dropping its future gives it up.
#[derive(Clone, Debug)]
pub struct Outward {
    resolver: Arc<dyn Resolve>,
    proxies: Proxies,
    /// Whether agents' names are dialled at public addresses only.
    guards_agents: bool,
}

impl Outward {
    /// By the addresses that `resolver` finds, a proxy's own among them, and through no proxy.
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self {
            resolver,
            proxies: Proxies::default(),
            guards_agents: false,
        }
    }

    /// The same, but a name that begins with an agent's id is dialled at public addresses only: whoever says
    /// that it is ours must not lead us to what is beside us. One that leads nowhere else is
    /// [`HostUnreachable`](io::ErrorKind::HostUnreachable). Where the proxy finds the address it is the proxy
    /// that may go there or not.
    pub fn with_agents_in_public(self) -> Self {
        Self {
            guards_agents: true,
            ..self
        }
    }

    /// The same through the proxies of this rule.
    pub fn with_proxies(self, proxies: Proxies) -> Self {
        Self { proxies, ..self }
    }

    async fn open(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let deadline = Instant::now() + TIMEOUT;
        let named = Target::new(host, port);
        let asked = named.to_string().parse::<RelayAddr>();
        let asked = asked.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match self.proxies.towards(&asked)? {
            None => {
                let attempt = |address| within(deadline, tcp::open(address));
                first(self.resolve(host, port, deadline).await?, attempt).await
            }
            Some(proxy) => self.through(proxy, named, (host, port), deadline).await,
        }
    }

    async fn through(
        &self,
        proxy: OutboundProxy,
        named: Target,
        (host, port): (&str, u16),
        deadline: Instant,
    ) -> io::Result<TcpStream> {
        let targets = match proxy.resolves() {
            true => vec![named],
            false => {
                let addresses = self.resolve(host, port, deadline).await?;
                addresses.into_iter().map(Target::Address).collect()
            }
        };
        let gateway = &Gateway {
            proxy,
            resolver: self.resolver.clone(),
            head_start: HEAD_START,
        };
        let attempt = async |target: Target| {
            let opened = gateway.open(&target, deadline).await;
            opened.map_err(|error| {
                let told = format!("through the proxy {}: {error}", gateway.proxy);
                io::Error::new(error.kind(), told)
            })
        };
        first(targets, attempt).await
    }

    async fn resolve(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut found = within(deadline, self.resolver.resolve(host, port)).await?;
        if self.guards_agents && is_agents(host) {
            found.retain(|address| is_public(address.ip()));
            if found.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::HostUnreachable,
                    "it leads into a local network, where an agent does not look for its own names",
                ));
            }
        }
        Ok(found)
    }
}

/// Whether it is the name of an agent, by its form: `<id>.…`.
fn is_agents(host: &str) -> bool {
    let host = host.parse::<Hostname>().ok();
    let first = host.as_ref().and_then(Hostname::split_first);
    first.is_some_and(|(first, _)| first.parse::<Label>().is_ok())
}

/// The first of these that is reached, or why the last was not.
async fn first<T, F: Future<Output = io::Result<TcpStream>>>(
    targets: Vec<T>,
    attempt: impl FnMut(T) -> F,
) -> io::Result<TcpStream> {
    let raced = race(targets.into_iter().map(attempt), HEAD_START).await;
    let nowhere = || io::ErrorKind::NotFound.into();
    raced.map_err(|mut errors| errors.pop().unwrap_or_else(nowhere))
}

impl Dial for Outward {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(self.open(host, port))
    }
}

#[cfg(test)]
mod tests;
