//! Agents that come all at once: they take turns, and all get in.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::agent::{Agent, config, new_key, start};
use e2e::origin::http;
use e2e::poll::until_ok;
use e2e::porter::{Porter, porter, yes};
use e2e::relay::{Relay, relay_identity, relay_with};
use e2e::transport::Over;
use e2e::visitor::get;
use rstest::rstest;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;
use tunnel_common::process::raise_descriptor_limit;
use tunnel_server::config::Config;
use tunnel_server::reset_keys::ResetKeys;

/// A herd, and the relay it comes to.
#[derive(Clone, Copy, Debug)]
struct Scene {
    agents: usize,
    /// Handshakes in a second …
    rate: u32,
    /// … and at once.
    burst: u32,
}

/// With the relay's defaults.
const ORDINARY: Scene = Scene {
    agents: 1000,
    rate: 200,
    burst: 500,
};
/// A relay that is slower than any machine: most wait or are turned away. Fewer agents, since each attempt
/// has 3 MB for the packets that it could receive at once, and glibc keeps what is freed.
const SLOW: Scene = Scene {
    agents: 500,
    rate: 60,
    burst: 60,
};
/// When all of them are back (CASES, F39).
const ALL_BACK: Duration = Duration::from_secs(60);
/// Seconds whose turns may be seen in one: a machine that is kept busy by others signs later than it
/// should.
const LATE: u32 = 2;
/// Those of the herd who get a visitor in the end.
const VISITED: usize = 10;

/// One handshake a second.
fn one_a_second(config: &mut Config) {
    (config.handshakes_per_second, config.handshake_burst) = (NonZeroU32::MIN, NonZeroU32::MIN);
}

/// Two agents at once, and how long it takes until both serve.
async fn both_serve(over: Over, relay: &Relay) -> Duration {
    let (origin, begun) = (http("x").await, Instant::now());
    let agents = [(); 2].map(|()| {
        let mut config = config(over, relay, new_key(), origin.address);
        config.pool_size = 1;
        start(config)
    });
    for agent in agents {
        let host = agent.host().await;
        let answer = get(relay.public, &host).await;
        assert_eq!(answer.expect("is served"), "x");
    }
    begun.elapsed()
}

#[rstest]
#[tokio::test]
async fn an_agent_too_many_gets_its_turn_a_little_later(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(one_a_second).await;
    let took = both_serve(over, &relay).await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

#[rstest]
#[tokio::test]
async fn an_agent_that_a_busy_relay_turns_away_comes_again_by_itself(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| {
        one_a_second(config);
        config.timeouts.handshake_turn = Duration::ZERO;
    })
    .await;
    let took = both_serve(over, &relay).await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

/// A relay's key that remembers when it was asked to sign: once for each handshake.
#[derive(Debug)]
struct CountingKey {
    key: Arc<dyn SigningKey>,
    asked: Mutex<Vec<Instant>>,
}

impl CountingKey {
    /// A new key.
    fn new() -> (Arc<Self>, Arc<CertifiedKey>) {
        let identity = relay_identity();
        let counting = Arc::new(Self {
            key: identity.key.clone(),
            asked: Mutex::default(),
        });
        let certified = CertifiedKey::new(identity.cert.clone(), counting.clone());
        (counting, Arc::new(certified))
    }

    /// Handshakes since the last call, and the most of them in any second.
    fn count(&self) -> (usize, usize) {
        let asked = std::mem::take(&mut *self.asked.lock().expect("not poisoned"));
        let second = Duration::from_secs(1);
        let from = |first: usize| {
            let within = |at: &&Instant| **at - asked[first] < second;
            asked[first..].iter().take_while(within).count()
        };
        let most = (0..asked.len()).map(from).max();
        (asked.len(), most.unwrap_or(0))
    }
}

impl SigningKey for CountingKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let mut asked = self.asked.lock().expect("not poisoned");
        asked.push(Instant::now());
        self.key.choose_scheme(offered)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// A porter who lets all in, and counts the agents that have wished for names.
fn counting_porter() -> (Arc<Porter>, watch::Receiver<usize>) {
    let (count, counted) = watch::channel(0);
    let mut seen = HashSet::new();
    let seen = Mutex::new(move |id| {
        seen.insert(id);
        seen.len()
    });
    let porter = porter(move |applicant| {
        if !applicant.hosts.is_empty() {
            let mut seen = seen.lock().expect("not poisoned");
            count.send_replace(seen(applicant.id));
        }
        yes()
    });
    (porter, counted)
}

/// Waits until the whole herd is here.
async fn all_here(herd: usize, mut counted: watch::Receiver<usize>) -> Duration {
    let begun = Instant::now();
    let all = timeout(ALL_BACK, counted.wait_for(|here| *here == herd)).await;
    let is_late = all.is_err();
    drop(all);
    let here = *counted.borrow();
    assert!(!is_late, "{here} of {herd} after {ALL_BACK:?}");
    begun.elapsed()
}

/// A relay on threads of its own, which can be killed: nothing that belongs to it says a word more.
async fn relay_apart(change: impl FnOnce(&mut Config) + Send + 'static) -> (Runtime, Relay) {
    let mut threads = Builder::new_multi_thread();
    let runtime = threads.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let starting = runtime.spawn(async move { relay_with(change).await });
    let relay = starting.await.expect("it starts");
    (runtime, relay)
}

async fn kill((runtime, relay): (Runtime, Relay)) {
    let ended = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(ALL_BACK));
    ended.await.expect("it ends");
    drop(relay);
}

/// Resident memory of this process in mebibytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.expect("has memory").trim().trim_end_matches(" kB");
    line.parse::<u64>().expect("a number") / 1024
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_a_herd_is_back_soon_after_a_crash_and_no_more_come_at_once_than_may(
    #[values(ORDINARY, SLOW)] scene: Scene,
) {
    let Scene {
        agents,
        rate,
        burst,
    } = scene;
    let needed = 3 * agents as u64;
    assert!(raise_descriptor_limit() > needed, "{needed} descriptors");
    let origin = http("x").await;
    let (handshakes, identity) = CountingKey::new();
    let keys = ResetKeys::random().expect("draws");
    let settings = |port, porter| {
        let (identity, keys) = (identity.clone(), keys.clone());
        move |config: &mut Config| {
            (config.identity, config.reset_keys) = (identity.into(), Some(keys));
            (config.api_port, config.admission) = (port, porter);
            config.handshakes_per_second = NonZeroU32::new(rate).expect("not zero");
            config.handshake_burst = NonZeroU32::new(burst).expect("not zero");
        }
    };
    let (porter, counted) = counting_porter();
    let first = relay_apart(settings(0, porter)).await;
    let (api, before) = (first.1.api.port(), resident());
    let agent = |_| start(config(Over::Quic, &first.1, new_key(), origin.address));
    let herd: Vec<Agent> = (0..agents).map(agent).collect();
    let tell = |what: &str, took: Duration| {
        let (all, most) = handshakes.count();
        eprintln!(
            "{agents} agents are {what} after {took:.1?}: {all} handshakes, {most} in one second"
        );
        assert!(most <= (burst + LATE * rate) as usize, "{most}");
    };
    tell("here", all_here(agents, counted).await);
    for agent in &herd {
        agent.serves().await;
    }
    eprintln!("{} MiB, before them {before} MiB", resident());

    kill(first).await;
    let (porter, counted) = counting_porter();
    let second = relay_apart(settings(api, porter)).await;
    tell("back", all_here(agents, counted).await);
    for agent in herd.iter().rev().take(VISITED) {
        let host = agent.host().await;
        let visit = async || get(second.1.public, &host).await;
        assert_eq!(until_ok("a visitor is served", visit).await, "x");
    }
    eprintln!("{} MiB in the end", resident());
    drop(herd);
    kill(second).await;
}
