//! Reaching the relay: choose the rule of trust, resolve, race the ways, and on each the addresses.
//!
//! [`policy`](super::policy) says which ways there are; [`quic`](super::quic) and [`h2`](super::h2)
//! connect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use quinn::TransportConfig;
use tokio::time::timeout;
use tunnel_common::identity::KeyFingerprint;
use tunnel_common::wire::alpn;
use tunnel_common::wire::frame::{Hello, Welcome};

use super::belief::{Belief, TlsSettings};
use super::connection::Connection;
use super::control::Control;
use super::dial_error::{DialError, TlsError};
use super::h2::OverTcp;
use super::policy::Way;
use super::relay_trust::Rule;
use super::verifier::Slots;
use super::{h2, quic};
use crate::config::Timeouts;
use crate::race::race;
use crate::relay_addr::RelayAddr;
use crate::resolve::Resolve;

/// Dials one relay, again and again with the same settings.
#[derive(Debug)]
pub(crate) struct Dialler {
    relay: RelayAddr,
    belief: Belief,
    quic: Arc<TransportConfig>,
    h2: OverTcp,
    timeouts: Timeouts,
    resolver: Arc<dyn Resolve>,
}

/// A relay that has said Welcome, and knows nothing yet of what we publish.
#[derive(Debug)]
pub(crate) struct Ready {
    /// How it was reached.
    pub(super) way: Way,
    /// The connection.
    pub(super) connection: Connection,
    /// Its control stream.
    pub(super) control: Control,
    /// What the relay said.
    pub(super) welcome: Welcome,
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
        (quic, h2): (TransportConfig, OverTcp),
        timeouts: Timeouts,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            belief: Belief::new(relay.clone(), tls)?,
            relay,
            quic: Arc::new(quic),
            h2,
            timeouts,
            resolver,
        })
    }

    /// The relay's address as the user gave it.
    pub(crate) fn relay(&self) -> &RelayAddr {
        &self.relay
    }

    /// Says `hello`, which wishes for nothing, over each of `ways`, and gives the first on which the
    /// relay says Welcome. Chooses the rule of trust and resolves anew each time. Dropping the future
    /// gives up all attempts.
    pub(crate) async fn reach(&self, ways: &[Way], hello: &Hello) -> Result<Ready, DialError> {
        let rule = self.belief.choose().await?;
        let (ready, first_seen) = self.race(ways, &rule, hello).await?;
        self.belief.reached(rule, first_seen).await?;
        Ok(ready)
    }

    async fn race(&self, ways: &[Way], rule: &Rule, hello: &Hello) -> Outcome {
        let addresses = self.resolve().await?;
        let attempt = |way| Box::pin(self.attempt(way, &addresses, rule, hello));
        let attempts = ways.iter().copied().map(attempt);
        match race(attempts, self.timeouts.head_start).await {
            Ok(decided) => decided,
            Err(mut failures) => {
                failures.sort_by_key(|(way, _)| ways.iter().position(|known| known == way));
                Err(DialError::of_ways(failures))
            }
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
            Ok((control, welcome)) => {
                let ready = Ready {
                    way,
                    connection,
                    control,
                    welcome,
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
        let attempt = async |mut address: SocketAddr| {
            let (slots, host) = (Arc::default(), self.relay.host());
            let connected = match way {
                Way::Quic => {
                    let tls = self.belief.client(rule, &slots, alpn::QUIC)?;
                    let config = quic::config(tls, self.quic.clone())?;
                    let limit = self.timeouts.quic.handshake;
                    quic::connect(address, host, config, limit).await
                }
                Way::H2 | Way::H2At(_) => {
                    if let Way::H2At(port) = way {
                        address.set_port(port);
                    }
                    let tls = Arc::new(self.belief.client(rule, &slots, alpn::H2)?);
                    h2::connect(address, host, tls, &self.h2).await
                }
            };
            outcome(connected, address, rule, &slots)
        };
        let attempts = addresses.iter().copied().map(attempt);
        race(attempts, self.timeouts.head_start).await
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, DialError> {
        let resolving = self.resolver.resolve(self.relay.host(), self.relay.port());
        match timeout(self.timeouts.resolve, resolving).await {
            Ok(addresses) => addresses.map_err(DialError::Resolve),
            Err(_) => Err(DialError::Resolve(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// What became of an attempt, by what its handshake left.
fn outcome(
    connected: Result<Connection, DialError>,
    address: SocketAddr,
    rule: &Rule,
    slots: &Slots,
) -> Result<Reached, DialError> {
    match (connected, slots.wrong.get()) {
        (Ok(connection), _) => Ok(Reached {
            connection,
            first_seen: slots.proved.get().copied(),
        }),
        (Err(_), Some(wrong)) => Err(DialError::Untrusted(address, Box::new(wrong.clone()))),
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
