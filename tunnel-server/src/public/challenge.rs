//! The relay's own answers to a certificate authority that validates its names (TLS-ALPN-01, RFC 8737).
//!
//! Whoever orders a certificate shows the challenge's certificate here for as long as the order lasts. The
//! authority gets a handshake with it, and nothing else is said on that connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::debug;
use tunnel_common::escape::Escaped;
use tunnel_common::hostname::Hostname;

use super::refusal::send_and_close;
use super::replay::Replay;
use crate::config::Timeouts;

/// What the relay shows at its own names while it orders certificates for them. Cheap to clone: all clones
/// are one table. Only the relay's own orders fill it, with an entry for each name.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnChallenges(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    shown: HashMap<Hostname, Shown>,
    next: u64,
}

#[derive(Debug)]
struct Shown {
    /// Tells it from a later one for the same host.
    serial: u64,
    config: Arc<ServerConfig>,
}

/// A challenge that can be validated. Dropping it ends that, unless another has taken its place.
#[derive(Debug)]
#[must_use = "the challenge is over when this is dropped"]
pub(crate) struct ShownChallenge {
    challenges: OwnChallenges,
    host: Hostname,
    serial: u64,
}

impl OwnChallenges {
    /// From now on handshakes that offer nothing but `acme-tls/1` for `host` get `config`, until the result is
    /// dropped. `config` must have the challenge's certificate, and `acme-tls/1` as its only protocol. A
    /// later one for the same host takes the place of an earlier.
    pub(crate) fn set(&self, host: Hostname, config: Arc<ServerConfig>) -> ShownChallenge {
        let mut table = self.table();
        table.next += 1;
        let serial = table.next;
        table.shown.insert(host.clone(), Shown { serial, config });
        drop(table);
        ShownChallenge {
            challenges: self.clone(),
            host,
            serial,
        }
    }

    /// What is shown at `host` now.
    pub(super) fn get(&self, host: &Hostname) -> Option<Arc<ServerConfig>> {
        let table = self.table();
        table.shown.get(host).map(|shown| shown.config.clone())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ShownChallenge {
    fn drop(&mut self) {
        let mut table = self.challenges.table();
        let shown = table.shown.get(&self.host);
        if shown.is_some_and(|shown| shown.serial == self.serial) {
            table.shown.remove(&self.host);
        }
    }
}

/// Shakes hands with `config` on a connection of which `first` has been read, and closes it. Whoever has not
/// shaken hands by `deadline` is cut off. Dropping the future closes the connection.
pub(super) async fn answer<S>(
    first: Bytes,
    connection: S,
    config: Arc<ServerConfig>,
    deadline: Instant,
    timeouts: &Timeouts,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = TlsAcceptor::from(config).accept(Replay::new(first, connection));
    let linger = timeouts.refusal_linger;
    match timeout_at(deadline, accepting.into_fallible()).await {
        Ok(Ok(tls)) => {
            debug!("a certificate authority has seen the answer to its challenge");
            send_and_close(tls, &[], linger).await;
        }
        Ok(Err((error, connection))) => {
            let why = error.to_string();
            debug!(why = %Escaped(&why), "no handshake for a challenge");
            // The alert that says why has been written; unread bytes would destroy it.
            send_and_close(connection, &[], linger).await;
        }
        Err(_) => debug!("closed: no handshake for a challenge in time"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
