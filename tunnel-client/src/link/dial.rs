//! Reaching the relay: choose the rule of trust, resolve, race the ways, and on each the addresses.
//!
//! [`policy`](super::policy) says which ways there are; `quic` and `h2` connect.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tracing::info;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::wire::alpn;
use tunnel_common::wire::frame::Hello;

use super::belief::{Belief, TlsSettings};
use super::connection::Connection;
use super::control::Control;
use super::dial_error::{DialError, TlsError};
use super::h2::OverTcp;
use super::policy::Way;
use super::quic::OverUdp;
use super::relay_trust::Rule;
use super::route::Route;
use super::verifier::Slots;
use super::{h2, quic};
use crate::config::Timeouts;
use crate::proxy::gateway::Gateway;
use crate::proxy::outbound::OutboundProxy;
use crate::proxy::target::Target;
use crate::race::race;
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;

/// Dials one relay, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct Dialler {
    relay: RelayAddr,
    belief: Belief,
    quic: OverUdp,
    h2: OverTcp,
    timeouts: Timeouts,
    resolver: Arc<dyn Resolve>,
    gateway: Option<Gateway>,
    /// What the relay's name led to last.
    addresses: Mutex<Vec<SocketAddr>>,
}

/// A relay that has said Welcome, and knows nothing yet of what we publish.
#[derive(Debug)]
pub(crate) struct Ready {
    /// How it was reached.
    pub(super) way: Way,
    /// Which tunnel of its pool it is to be.
    pub(super) slot: u16,
    /// The connection.
    pub(super) connection: Connection,
    /// Its control stream.
    pub(super) control: Control,
}

/// A connection to the relay, and its key if it is seen for the first time.
#[derive(Debug)]
struct Reached {
    connection: Connection,
    first_seen: Option<KeyFingerprint>,
}

/// What a way led to. A failure of this kind leaves the others no hope.
type Outcome = Result<(Ready, Option<KeyFingerprint>), DialError>;

impl Dialler {
    /// Prepares to dial `relay`.
    pub(crate) fn new(
        relay: RelayAddr,
        tls: TlsSettings,
        (quic, h2): (OverUdp, OverTcp),
        timeouts: Timeouts,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            belief: Belief::new(relay.clone(), tls)?,
            relay,
            quic,
            h2,
            timeouts,
            resolver,
            gateway: None,
            addresses: Mutex::default(),
        })
    }

    /// Dials through `proxy` alone, if there is one.
    pub(crate) fn with_proxy(mut self, proxy: Option<OutboundProxy>) -> Self {
        self.gateway = proxy.map(|proxy| Gateway {
            proxy,
            resolver: self.resolver.clone(),
            head_start: self.timeouts.head_start,
        });
        self
    }

    /// The relay's address as the user gave it.
    pub(crate) fn relay(&self) -> &RelayAddr {
        &self.relay
    }

    /// The relay's addresses as they were found last; none behind a proxy.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says `hello`, which wishes for nothing, over each of `ways`, and gives the first on which the
    /// relay says Welcome. Chooses the rule of trust and resolves anew each time. Dropping the future
    /// gives up all attempts.
    pub(crate) async fn reach(&self, ways: &[Way], hello: &Hello) -> Result<Ready, DialError> {
        let rule = self.belief.choose().await?;
        let raced = match &self.gateway {
            None => self.race(ways, &rule, hello).await,
            Some(Gateway { proxy, .. }) => {
                info!(%proxy, "dialling through a proxy, by HTTP/2 alone");
                let raced = self.race(ways, &rule, hello).await;
                raced.map_err(|error| error.through(proxy))
            }
        };
        let (ready, first_seen) = raced?;
        self.belief.reached(rule, first_seen).await?;
        Ok(ready)
    }

    async fn race(&self, ways: &[Way], rule: &Rule, hello: &Hello) -> Outcome {
        let addresses = self.resolve().await?;
        let attempt = |way| Box::pin(self.attempt(way, &addresses, rule, hello));
        // On first sight whoever answers is believed: another port of that host comes last. And QUIC that
        // is not to come first comes when nothing else leads there: it would win by its fewer round trips.
        let (mut others, own): (Vec<_>, Vec<_>) = ways.iter().partition(|way| match way {
            Way::Quic => ways.first() != Some(way),
            Way::H2 => false,
            Way::H2At(_) => matches!(rule, Rule::FirstUse),
        });
        // While QUIC has its chance the relay may come back where UDP does not pass.
        if others.contains(&Way::Quic) {
            others.extend(&own);
        }
        let mut failures = vec![];
        for ways in [own, others] {
            match race(ways.into_iter().map(attempt), self.head_start()).await {
                Ok(decided) => return decided,
                Err(failed) => failures.extend(failed),
            }
        }
        failures.sort_by_key(|(way, _)| ways.iter().position(|known| known == way));
        failures.dedup_by_key(|(way, _)| *way);
        Err(DialError::of_ways(failures))
    }

    /// Before the next way is tried beside one that has not led anywhere. Through a proxy they are
    /// tried in turn: what is wrong with the first is mostly wrong with all, and wrong credentials
    /// should not be shown more often than needed.
    fn head_start(&self) -> Duration {
        match self.gateway {
            Some(_) => self.timeouts.tcp_handshake + self.timeouts.welcome,
            None => self.timeouts.head_start,
        }
    }

    /// Connects to the relay by one way and greets it.
    async fn attempt(
        &self,
        way: Way,
        addresses: &[SocketAddr],
        rule: &Rule,
        hello: &Hello,
    ) -> Result<Outcome, (Way, DialError)> {
        let Reached {
            connection,
            first_seen,
        } = match self.connect(way, addresses, rule).await {
            Ok(reached) => reached,
            Err(failures) => return DialError::of_way(way, failures).map(Err),
        };
        match Control::greet(&connection, hello, &self.timeouts).await {
            Ok(control) => {
                let ready = Ready {
                    way,
                    slot: hello.slot,
                    connection,
                    control,
                };
                Ok(Ok((ready, first_seen)))
            }
            Err(failure) => DialError::of_way(way, vec![failure.into()]).map(Err),
        }
    }

    /// Connects to the first of the relay's addresses that answers and is trusted.
    async fn connect(
        &self,
        way: Way,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Reached, Vec<DialError>> {
        match way {
            Way::Quic => self.over_quic(addresses, rule).await,
            Way::H2 => self.over_tcp(self.relay.port(), addresses, rule).await,
            Way::H2At(port) => self.over_tcp(port, addresses, rule).await,
        }
    }

    async fn over_quic(
        &self,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Reached, Vec<DialError>> {
        let host = self.relay.host();
        let attempt = async |address: SocketAddr| {
            let slots = Arc::default();
            let tls = self.belief.client(rule, &slots, alpn::QUIC)?;
            let connected = quic::connect(address, host, tls, &self.quic).await;
            outcome(connected, address.into(), rule, &slots)
        };
        let attempts = addresses.iter().copied().map(attempt);
        race(attempts, self.timeouts.head_start).await
    }

    async fn over_tcp(
        &self,
        port: u16,
        addresses: &[SocketAddr],
        rule: &Rule,
    ) -> Result<Reached, Vec<DialError>> {
        let attempt = async |route: Route<'_>| {
            let slots = Arc::default();
            let tls = Arc::new(self.belief.client(rule, &slots, alpn::H2)?);
            let connected = h2::connect(&route, self.relay.host(), tls, &self.h2).await;
            outcome(connected, route.target(), rule, &slots)
        };
        let attempts = self.routes(port, addresses).into_iter().map(attempt);
        race(attempts, self.timeouts.head_start).await
    }

    /// The routes to a TCP port of the relay.
    fn routes(&self, port: u16, addresses: &[SocketAddr]) -> Vec<Route<'_>> {
        let at_port = addresses.iter().map(|address| {
            let mut address = *address;
            address.set_port(port);
            address
        });
        match &self.gateway {
            None => at_port.map(Route::Direct).collect(),
            Some(gateway) if gateway.proxy.resolves() => {
                let target = Target::new(self.relay.host(), port);
                vec![Route::Through(gateway, target)]
            }
            Some(gateway) => {
                let targets = at_port.map(Target::Address);
                targets.map(|to| Route::Through(gateway, to)).collect()
            }
        }
    }

    /// The relay's addresses, unless it is a proxy that finds them.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let failed = match &self.gateway {
            Some(gateway) if gateway.proxy.resolves() => return Ok(vec![]),
            Some(_) => DialError::ResolveForProxy,
            None => DialError::Resolve,
        };
        let resolving = self.resolver.resolve(self.relay.host(), self.relay.port());
        let found = match timeout(self.timeouts.resolve, resolving).await {
            Ok(found) => found.map_err(failed)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        if self.gateway.is_none() {
            let addresses = self.addresses.lock();
            *addresses.unwrap_or_else(PoisonError::into_inner) = found.clone();
        }
        Ok(found)
    }
}

/// What became of an attempt, by what its handshake left.
fn outcome(
    connected: Result<Connection, DialError>,
    target: Target,
    rule: &Rule,
    slots: &Slots,
) -> Result<Reached, DialError> {
    match (connected, slots.wrong.get()) {
        (Ok(connection), _) => Ok(Reached {
            connection,
            first_seen: slots.proved.get().copied(),
        }),
        (Err(_), Some(wrong)) => Err(DialError::Untrusted(target, Box::new(wrong.clone()))),
        (Err(error), None) => {
            let by_authority = matches!(rule, Rule::PublicAuthority | Rule::Authority(_));
            if by_authority && error.is_about_certificate() {
                return Err(DialError::NotVouchedFor(Box::new(error)));
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
