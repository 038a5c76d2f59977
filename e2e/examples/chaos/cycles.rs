//! Relay and agent lose each other a thousand times, and nothing is left behind: no task, no descriptor,
//! no memory, no entry in the registry. The libraries, in this process, on loopback.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use e2e::agent::{Agent, config_at, new_key, same_key, start};
use e2e::origin::{Origin, http};
use e2e::poll::{pass, until_ok};
use e2e::ports::{self, Reserved};
use e2e::process::resident_bytes;
use e2e::relay::{Relay, relay_identity, relay_with};
use e2e::stage::descriptors;
use e2e::transport::Over;
use e2e::visitor::{alert, get};
use rcgen::KeyPair;
use rustls::AlertDescription;
use rustls::sign::CertifiedKey;
use tokio::runtime::Handle;

use crate::stage::{CALM, happens};
use crate::story::Outcome;

/// How often they lose each other, in all.
const CYCLES: usize = 1000;
/// Every so many cycles it is the relay that goes and comes back, after the agent's back-off; in the others
/// it is the agent.
const RELAYS_TURN: usize = 10;
/// So many cycles go before the first look: buffers for packets, of which each new socket has 3 MB, and the
/// allocator's arenas come to their level, and what is allocated once is not left behind.
const WARM_UP: usize = 300;
/// What the memory may have grown by, from the most that it was in the warm-up: less than ten KiB for each
/// cycle.
const MAX_GROWTH: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;

/// What the process has at some time.
#[derive(Clone, Copy)]
struct Holdings {
    tasks: usize,
    descriptors: usize,
    resident: u64,
}

/// Where relay and agent meet again: the same ports, the same keys.
struct Stand {
    over: Over,
    api: Reserved<TcpListener>,
    public: Reserved<TcpListener>,
    relay_key: Arc<CertifiedKey>,
    agent_key: KeyPair,
    origin: Origin,
}

/// Plays the cycles, and compares what the process holds before and after.
pub(crate) async fn cycles(over: Over) -> Outcome {
    let count = std::env::var("CYCLES").map_or(CYCLES, |text| text.parse().expect("a number"));
    let stand = Stand {
        over,
        api: ports::tcp(),
        public: ports::tcp(),
        relay_key: relay_identity(),
        agent_key: new_key(),
        origin: http("here").await,
    };
    let mut relay = stand.relay().await;
    let mut agent = stand.agent(&relay);
    let host = agent.host().await;
    let (mut before, mut most) = (None, 0);
    for cycle in 0..WARM_UP + count {
        if cycle < WARM_UP {
            most = most.max(resident_bytes("self"));
        }
        if cycle == WARM_UP {
            pass(CALM).await;
            before = Some(Holdings {
                resident: most,
                ..Holdings::now()
            });
        }
        if cycle % RELAYS_TURN == 0 {
            relay.stop().await;
            relay = stand.relay().await;
        } else {
            agent.stop().await;
            is_unknown(&relay, &host).await;
            agent = stand.agent(&relay);
        }
        until_ok("it serves again", async || get(relay.public, &host).await).await;
    }
    let before = before.expect("cycles behind the warm-up");
    happens(|| Holdings::now().is_back_at(before)).await;
    compare(count, before, Holdings::now())
}

/// Waits until the relay knows nobody of that name any more.
async fn is_unknown(relay: &Relay, host: &str) {
    until_ok("the registry has no entry", async || {
        match get(relay.public, host).await {
            Err(error) if alert(&error) == Some(AlertDescription::UnrecognisedName) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

fn compare(count: usize, before: Holdings, after: Holdings) -> Outcome {
    let what = format!("{count} cycles: {before} before, {after} after");
    let mut outcome = Outcome {
        requests: count,
        ..Outcome::default()
    };
    if after.is_back_at(before) {
        outcome.notes.push(what);
    } else {
        outcome.faults.push(what);
    }
    outcome
}

impl Stand {
    async fn relay(&self) -> Relay {
        relay_with(|config| {
            config.identity = self.relay_key.clone().into();
            config.bind_addr = ports::ADDRESS.into();
            config.api_port = self.api.port;
            config.pub_port = self.public.port;
        })
        .await
    }

    fn agent(&self, relay: &Relay) -> Agent {
        let (api, key) = (relay.api, same_key(&self.agent_key));
        let origin = self.origin.address;
        start(config_at(self.over, api, relay.fingerprint, key, origin))
    }
}

impl Holdings {
    fn now() -> Self {
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: descriptors(),
            resident: resident_bytes("self"),
        }
    }

    fn is_back_at(self, before: Self) -> bool {
        self.tasks <= before.tasks
            && self.descriptors <= before.descriptors
            && self.resident <= before.resident + MAX_GROWTH
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, descriptors) = (self.tasks, self.descriptors);
        let mebibytes = self.resident / MIB;
        write!(
            formatter,
            "{tasks} tasks, {descriptors} descriptors, {mebibytes} MiB"
        )
    }
}
