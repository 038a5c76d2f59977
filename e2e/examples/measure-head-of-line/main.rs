//! Prints how many visitors one lost packet holds up, and for how long: `make measure-head-of-line`.
//!
//! ```text
//! near: local service, client ── 25 ms ──▶ far: server, 64 visitors
//!                      one packet of the tunnel is lost ✗
//! ```
//!
//! Every visitor gets a message each 20 ms. One trial is three windows of half a second: the line
//! recovers, nothing happens (the control), one packet is lost. A visitor stalls in a window if two
//! messages come there further apart than usual by more than half a round trip. What a busy machine
//! does to them is seen in the controls.
//!
//! After a few trials all begins anew with other connections: the BBR of Linux holds each of them back
//! for 0.2 s when it is 10 s old, to measure the round trip, and that looks like a loss.
//!
//! `TRIALS=100` makes so many trials for each kind of tunnel, rounded up to whole sessions.
//! `KIND=QUIC` measures the kinds alone that are called so.
//! `TCP_CONGESTION=reno` lets the kernel's TCP use that, and not what it uses by default. With it, or with
//! cubic, a connection is slow for seconds after a loss, and the controls show it.

use std::time::Duration;

use e2e::netsim::{Line, Loss, Namespace, line};
use e2e::poll::eventually;

use crate::figures::{Column, print};
use crate::scene::{Scene, scene};
use crate::stalls::{Span, Trial, Watched};

mod figures;
mod scene;
mod stalls;

const ONE_WAY: Duration = Duration::from_millis(25);
const WINDOW: Duration = Duration::from_millis(500);
/// How many trials one session of connections sees: it ends before they are 10 s old.
const TRIALS_OF_SESSION: usize = 4;
/// How long random loss is watched.
const RANDOM_LOSS: Duration = Duration::from_secs(6);
/// The share of the packets that random loss takes, in each direction.
const LOSS: f64 = 0.01;
const TRIALS: usize = 60;
/// What the kernel's TCP does about congestion. Each network namespace has its own.
const TCP_CONGESTION_FILE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Acknowledgements are smaller, packets with messages larger; IP header counted.
const LARGEST_WITHOUT_DATA: usize = 600;
/// The processes and this one must not wait for others.
const NICENESS: i32 = -15;

/// A kind of tunnel: its name, the client's flags for it, and how many connections it is.
struct Kind {
    name: &'static str,
    flags: &'static [&'static str],
    transport: &'static str,
    connections: usize,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "QUIC",
        flags: &[],
        transport: "QUIC",
        connections: 1,
    },
    Kind {
        name: "HTTP/2, one",
        flags: &["--force-h2", "--pool-size", "1"],
        transport: "HTTP/2",
        connections: 1,
    },
    Kind {
        name: "HTTP/2, pool of 4",
        flags: &["--force-h2", "--pool-size", "4"],
        transport: "HTTP/2",
        connections: 4,
    },
];

fn main() {
    // Without it the figures of a busy machine are worse.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let runtime = tokio::runtime::Runtime::new();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let trials = std::env::var("TRIALS").map_or(TRIALS, |text| text.parse().expect("a number"));
    let wanted = std::env::var("KIND").unwrap_or_default();
    let (mut columns, mut tcp) = (vec![], String::new());
    for kind in KINDS.iter().filter(|kind| kind.name.contains(&wanted)) {
        let mut watched = Watched::default();
        while watched.trials.len() < trials {
            match watch(kind, &mut watched, Weather::SingleLosses).await {
                Some(in_force) => tcp = in_force,
                None => return,
            }
        }
        watch(kind, &mut watched, Weather::RandomLoss).await;
        columns.push(Column::new(kind.name, &watched));
    }
    print(&columns, trials, tcp.trim());
}

/// What a session's line does.
#[derive(Clone, Copy, Debug)]
enum Weather {
    SingleLosses,
    RandomLoss,
}

/// One session: all start, and end. Gives TCP's congestion control; `None` if this machine has no
/// simulated network.
async fn watch(kind: &Kind, watched: &mut Watched, weather: Weather) -> Option<String> {
    let line = line()?;
    line.both(|conditions| conditions.delay = ONE_WAY);
    let tcp = tcp_congestion(&line);
    let mut scene = scene(line, kind.flags).await;
    let is_complete = || scene.client.tunnels_over(kind.transport) == kind.connections;
    eventually("all connections serve", is_complete).await;
    scene.visitors_come().await;
    pass(WINDOW).await;
    match weather {
        Weather::SingleLosses => {
            for _ in 0..TRIALS_OF_SESSION {
                watched.trials.push(trial(&scene).await);
            }
        }
        Weather::RandomLoss => {
            let loss = Loss::Random(LOSS);
            scene.line.both(|conditions| conditions.loss = loss);
            watched.random_loss = Some(pass(RANDOM_LOSS).await);
        }
    }
    watched.visitors.extend(scene.visitors_leave().await);
    Some(tcp)
}

/// Sets the congestion control that was asked for, and gives the one in force.
fn tcp_congestion(line: &Line) -> String {
    let in_force = |end: &Namespace| {
        end.enter(|| {
            if let Ok(wanted) = std::env::var("TCP_CONGESTION") {
                let written = std::fs::write(TCP_CONGESTION_FILE, wanted);
                written.expect("one that `tcp_allowed_congestion_control` names");
            }
            std::fs::read_to_string(TCP_CONGESTION_FILE).expect("Linux")
        })
    };
    in_force(line.far());
    in_force(line.near())
}

/// One packet is lost.
async fn trial(scene: &Scene) -> Trial {
    pass(WINDOW).await;
    let control = pass(WINDOW).await;
    let up = scene.line.up();
    let before = up.counts().lost;
    up.lose_one(LARGEST_WITHOUT_DATA);
    let loss = pass(WINDOW).await;
    assert_eq!(up.counts().lost, before + 1, "not one packet was lost");
    Trial { control, loss }
}

/// Lets so much time pass, and gives it.
async fn pass(time: Duration) -> Span {
    let begin = std::time::Instant::now();
    let forever = std::future::pending::<()>();
    let _ = tokio::time::timeout(time, forever).await;
    begin..std::time::Instant::now()
}
