//! Who may register: the question, asked of whoever decides, and those who do.
//!
//! The relay asks when an agent says Hello, when an agent wishes for something else, and when
//! [`Admission::changes`] says that answers given before may no longer hold.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tunnel_common::hostname::Hostname;
use tunnel_common::identity::ClientId;

pub mod allow_list;
pub mod list_file;

/// What an [`Admission`] promises.
pub type Deciding<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;
/// What an [`Admission`] does beside deciding.
pub type Upkeep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Somebody who asks to be let in. Its key is proved; all else is what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applicant {
    /// The fingerprint of its key.
    pub id: ClientId,
    /// The key itself: a SubjectPublicKeyInfo in DER, P-256 or Ed25519.
    pub public_key: Vec<u8>,
    /// The private extension of its certificate (OID 1.3.6.1.4.1.65535.1), if it has one: a claim
    /// of the agent, up to 8 KiB, and no proof of anything by itself.
    pub extension: Option<Vec<u8>>,
    /// The host names that it wants in the name of this key. None while it only knocks: agents say
    /// Hello over several ways at once, and wish for names where they are first let in.
    pub hosts: Vec<Hostname>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may register.
    Admitted,
    /// It may not.
    Refused {
        /// What the agent's user is told: why, and what to do. Cut at 255 bytes, on one line.
        text: String,
        /// When the agent may ask again. Without it, the agent gives up.
        retry_after: Option<Duration>,
    },
}

/// Decides who may register.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Whether `applicant` may register.
    ///
    /// The relay waits for [`Timeouts::admission`](crate::config::Timeouts::admission) and then
    /// drops the future: an agent that is not in yet is turned away for a while; one that is in keeps
    /// what it has, gets nothing more, and is asked about again.
    fn decide<'a>(&'a self, applicant: &'a Applicant) -> Deciding<'a>;

    /// Changes its value whenever the answers to the same questions may have changed: then they are
    /// asked again for every agent that is in.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Runs as long as the relay does, and is dropped at its end.
    fn upkeep(&self) -> Upkeep<'_> {
        Box::pin(std::future::pending())
    }
}

/// Lets everybody in.
#[derive(Debug)]
pub struct Open(watch::Sender<u64>);

impl Default for Open {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Admission for Open {
    fn decide<'a>(&'a self, _: &'a Applicant) -> Deciding<'a> {
        Box::pin(std::future::ready(Verdict::Admitted))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
