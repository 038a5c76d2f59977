//! What relay and agent take from the heap for a visit, a request and a mebibyte, over either transport.
//!
//! A guard that no noise reaches: allocations are counted, not timed, so a busy machine changes next to
//! nothing. Relay and agent run on this thread, and only its allocations count; visitors and the local service
//! run on another. Of a few rounds the least counts, since now and then a keep-alive or a packet that was cut
//! otherwise falls into one. What C code takes (aws-lc) is not seen.
//!
//! `cargo test -p bench --test cost -- --nocapture` shows the figures. Who means to pay more raises a bound
//! here, and says in the commit what for; who pays much less lowers it.

use allocation_counter::{AllocationInfo, measure};
use e2e::agent::{Agent, publish};
use e2e::origin::{self, Origin, origin};
use e2e::relay::{Relay, relay};
use e2e::stage::{pour, sip};
use e2e::transport::Over;
use e2e::visitor::{Visitor, get, get_on, visit};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Bounds are some 1.3 times what was counted when they were set: room for another compiler, for versions of
/// what we stand on and for what a busy machine cuts otherwise, and none for four more allocations a request.
/// The bytes of a mebibyte have less room, so that one more copy of every byte does not pass.
struct Bounds {
    /// A connection with one GET on it. Most of it is the agent's TLS handshake.
    visit: Cost,
    /// A GET on a connection that stays, answered in one piece. Three of the agent's TLS, the others are
    /// what carries two small pieces through the tunnel.
    request: Cost,
    /// A mebibyte to the visitor. In bytes: how often each byte is copied to a new place.
    download: Cost,
    /// A mebibyte from the visitor.
    upload: Cost,
}

/// Counted: 257 (73 kB), 11 (0.9 kB), 453 (3.30 to 3.45 MB), 379 (3.25 to 3.42 MB).
const QUIC: Bounds = Bounds {
    visit: Cost::of(335.0, 95_000.0),
    request: Cost::of(14.0, 1_150.0),
    download: Cost::of(590.0, 4_200_000.0),
    upload: Cost::of(495.0, 4_200_000.0),
};

/// Counted: 278 (82 kB), 11 (0.9 kB), 524 (5.83 to 6.05 MB), 479 (5.82 to 6.03 MB). The tunnel has TLS of its
/// own, in Rust's buffers, where QUIC encrypts in place.
const H2: Bounds = Bounds {
    visit: Cost::of(365.0, 105_000.0),
    request: Cost::of(14.0, 1_150.0),
    download: Cost::of(680.0, 6_750_000.0),
    upload: Cost::of(620.0, 6_750_000.0),
};

/// So many are counted, behind one that fills pools and tables.
const ROUNDS: usize = 8;
/// In each round: so many that the tail of the last one, which falls into the next round, is little.
const VISITS: u32 = 20;
const REQUESTS: u32 = 200;
const MEBIBYTES: u32 = 16;
const TRANSFER_BYTES: usize = (MEBIBYTES as usize) << 20;

/// What a visitor says to the service that moves mebibytes.
const DOWNLOAD: u8 = b'd';
/// The same for the other direction; the service answers with one byte when all is there.
const UPLOAD: u8 = b'u';

#[rstest]
fn a_visit_is_cheap(#[values(Over::Quic, Over::H2)] over: Over) {
    let scene = Scene::new(over, origin::http("hello"));
    let public = scene.relay.public;
    let cost = scene.least(VISITS, (), |()| {
        let host = scene.host.clone();
        async move {
            for _ in 0..VISITS {
                get(public, &host).await.expect("is served");
            }
        }
    });
    cost.is_within(&bounds(over).visit, over, "a visit");
}

#[rstest]
fn a_request_is_cheap(#[values(Over::Quic, Over::H2)] over: Over) {
    let scene = Scene::new(over, origin::http("hello"));
    let cost = scene.least(REQUESTS, scene.visit(), |mut visitor| {
        let host = scene.host.clone();
        async move {
            for _ in 0..REQUESTS {
                get_on(&mut visitor, &host).await.expect("is served");
            }
            visitor
        }
    });
    cost.is_within(&bounds(over).request, over, "a request");
}

#[rstest]
fn a_mebibyte_down_is_cheap(#[values(Over::Quic, Over::H2)] over: Over) {
    let scene = Scene::new(over, origin(move_mebibytes));
    let cost = scene.least(MEBIBYTES, scene.visit(), |mut visitor| async move {
        visitor.write_all(&[DOWNLOAD]).await.expect("asks");
        sip(&mut visitor, TRANSFER_BYTES).await;
        visitor
    });
    cost.is_within(&bounds(over).download, over, "a mebibyte down");
}

#[rstest]
fn a_mebibyte_up_is_cheap(#[values(Over::Quic, Over::H2)] over: Over) {
    let scene = Scene::new(over, origin(move_mebibytes));
    let cost = scene.least(MEBIBYTES, scene.visit(), |mut visitor| async move {
        visitor.write_all(&[UPLOAD]).await.expect("asks");
        pour(&mut visitor, TRANSFER_BYTES).await.expect("uploads");
        sip(&mut visitor, 1).await;
        visitor
    });
    cost.is_within(&bounds(over).upload, over, "a mebibyte up");
}

fn bounds(over: Over) -> Bounds {
    match over {
        Over::Quic => QUIC,
        Over::H2 => H2,
    }
}

/// A local service that does as its visitor says, until he goes.
async fn move_mebibytes(mut stream: TcpStream) {
    while let Ok(way) = stream.read_u8().await {
        if way == UPLOAD {
            sip(&mut stream, TRANSFER_BYTES).await;
            stream.write_all(&[way]).await.expect("answers");
        } else {
            pour(&mut stream, TRANSFER_BYTES).await.expect("answers");
        }
    }
}

/// How often the heap was asked, and for how many bytes in all. To grow is to ask for the new size.
#[derive(Clone, Copy, Debug)]
struct Cost {
    allocations: f64,
    bytes: f64,
}

impl Cost {
    const fn of(allocations: f64, bytes: f64) -> Self {
        Self { allocations, bytes }
    }

    /// What one of `units` cost.
    fn each(counted: &AllocationInfo, units: u32) -> Self {
        let share = |total: u64| total as f64 / f64::from(units);
        Self::of(share(counted.count_total), share(counted.bytes_total))
    }

    fn least(self, other: Self) -> Self {
        Self::of(
            self.allocations.min(other.allocations),
            self.bytes.min(other.bytes),
        )
    }

    fn is_within(self, bound: &Self, over: Over, what: &str) {
        let shown = format!(
            "{what} over {over:?}: {:.1} allocations of at most {}, {:.0} bytes of at most {}",
            self.allocations, bound.allocations, self.bytes, bound.bytes
        );
        println!("{shown}");
        assert!(self.allocations > 0.0, "nothing is counted: {shown}");
        assert!(self.allocations <= bound.allocations, "{shown}");
        assert!(self.bytes <= bound.bytes, "{shown}");
    }
}

/// Relay and agent on this thread, and everybody else on another.
struct Scene {
    relay: Relay,
    host: String,
    _agent: Agent,
    _service: Origin,
    here: Runtime,
    elsewhere: Runtime,
}

impl Scene {
    /// A service that is published.
    fn new(over: Over, service: impl Future<Output = Origin>) -> Self {
        let here = Builder::new_current_thread().enable_all().build();
        let mut threads = Builder::new_multi_thread();
        let elsewhere = threads.worker_threads(1).enable_all().build();
        let (here, elsewhere) = (here.expect("a runtime"), elsewhere.expect("a runtime"));
        let service = elsewhere.block_on(service);
        let (relay, agent, host) = here.block_on(async {
            let relay = relay().await;
            let agent = publish(over, &relay, service.address).await;
            let host = agent.host().await;
            (relay, agent, host)
        });
        Self {
            relay,
            host,
            _agent: agent,
            _service: service,
            here,
            elsewhere,
        }
    }

    /// A visitor whose connection stays.
    fn visit(&self) -> Visitor {
        let (public, host) = (self.relay.public, self.host.clone());
        let (visitor, _) = self.meanwhile(async move { visit(public, &host).await });
        visitor.expect("visits")
    }

    /// What relay and agent take while `others` is done elsewhere.
    fn meanwhile<T>(&self, others: impl Future<Output = T> + Send + 'static) -> (T, AllocationInfo)
    where
        T: Send + 'static,
    {
        let others = self.elsewhere.spawn(others);
        let mut done = None;
        let counted = measure(|| done = Some(self.here.block_on(others)));
        let done = done.expect("was awaited").expect("does not panic");
        (done, counted)
    }

    /// The least that one of `units` takes, of which each round has so many. A round hands on what the next
    /// one needs.
    fn least<T, F>(&self, units: u32, first: T, round: impl Fn(T) -> F) -> Cost
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (mut needed, _) = self.meanwhile(round(first));
        let mut least = Cost::of(f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            let counted;
            (needed, counted) = self.meanwhile(round(needed));
            least = least.least(Cost::each(&counted, units));
        }
        least
    }
}
