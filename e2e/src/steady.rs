//! A bystander: an agent and a visitor who exchange bytes without a pause, whatever others do to the
//! relay meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tunnel_common::identity::KeyFingerprint;

use crate::agent::{Agent, config_at, new_key, start};
use crate::origin::{Origin, echo};
use crate::poll::eventually;
use crate::relay::Relay;
use crate::transport::Over;
use crate::visitor::visit;

/// Bytes that go each way in one round: more than a packet, less than any window.
const ROUND_BYTES: usize = 16 * 1024;
/// Rounds of one visit. The next visit begins with a handshake, which is what breaks first.
const ROUNDS_OF_VISIT: usize = 16;
/// A round that takes longer is an error: no story holds the machine up for so long.
const ROUND_LIMIT: Duration = Duration::from_secs(10);
/// Rounds that show progress.
const SOME_ROUNDS: u64 = 32;

/// Bystanders at work. Dropping them ends them.
#[derive(Debug)]
pub struct Steady {
    /// The host name at which the agent serves.
    pub host: String,
    counts: Arc<Counts>,
    began: Instant,
    running: AbortHandle,
    _agent: Agent,
    _origin: Origin,
}

#[derive(Debug, Default)]
struct Counts {
    rounds: AtomicU64,
    errors: Mutex<Vec<String>>,
}

/// Bystanders at a relay of this process.
pub async fn steady(over: Over, relay: &Relay) -> Steady {
    steady_at(over, relay.api, relay.public, relay.fingerprint).await
}

/// Bystanders at a relay that is anywhere: its ports, and its key.
pub async fn steady_at(
    over: Over,
    api: SocketAddr,
    public: SocketAddr,
    relay: KeyFingerprint,
) -> Steady {
    let origin = echo().await;
    let agent = start(config_at(over, api, relay, new_key(), origin.address));
    let (host, counts) = (agent.host().await, Arc::new(Counts::default()));
    let running = tokio::spawn(exchange(public, host.clone(), counts.clone()));
    let steady = Steady {
        host,
        counts,
        began: Instant::now(),
        running: running.abort_handle(),
        _agent: agent,
        _origin: origin,
    };
    steady.goes_on().await;
    steady
}

async fn exchange(public: SocketAddr, host: String, counts: Arc<Counts>) {
    loop {
        if let Err(error) = one_visit(public, &host, &counts).await {
            let mut errors = counts.errors.lock().expect("not poisoned");
            errors.push(error.to_string());
        }
    }
}

async fn one_visit(public: SocketAddr, host: &str, counts: &Counts) -> io::Result<()> {
    let mut visitor = visit(public, host).await?;
    for round in 0..ROUNDS_OF_VISIT {
        let sent = vec![u8::try_from(round).expect("few rounds"); ROUND_BYTES];
        let mut answer = vec![0; ROUND_BYTES];
        let there_and_back = async {
            visitor.write_all(&sent).await?;
            visitor.read_exact(&mut answer).await
        };
        timeout(ROUND_LIMIT, there_and_back).await??;
        if answer != sent {
            return Err(io::Error::other("other bytes came back"));
        }
        counts.rounds.fetch_add(1, Ordering::Relaxed);
    }
    visitor.shutdown().await
}

impl Steady {
    /// Rounds so far.
    pub fn rounds(&self) -> u64 {
        self.counts.rounds.load(Ordering::Relaxed)
    }

    /// What has gone wrong so far.
    pub fn errors(&self) -> Vec<String> {
        self.counts.errors.lock().expect("not poisoned").clone()
    }

    /// Waits for some more rounds. Nothing may have gone wrong.
    pub async fn goes_on(&self) {
        let before = self.rounds();
        eventually("the bystanders go on", || {
            self.rounds() >= before + SOME_ROUNDS || !self.errors().is_empty()
        })
        .await;
        assert_eq!(self.errors(), Vec::<String>::new());
    }

    /// Waits for some more rounds, says how fast they were, and ends. Nothing may have gone wrong.
    pub async fn was_not_disturbed(self) {
        self.goes_on().await;
        let (rounds, took) = (self.rounds(), self.began.elapsed());
        let each_second = u128::from(rounds) * 1000 / took.as_millis().max(1);
        println!("bystanders: {rounds} rounds in {took:?}, {each_second} each second, no error");
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.running.abort();
    }
}
