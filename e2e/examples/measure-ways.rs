//! Prints how long visitors wait when UDP is blocked from the start, dies, and comes back:
//! `make measure-ways`.
//!
//! ```text
//! near: echo, client ── round trip 20 ms ── far: server, a new visitor every 25 ms, 8 who stay
//! ```
//!
//! `ROUNDS=5` plays all of it so often.

use std::time::{Duration, Instant};

use e2e::netsim::scene::{Scene, scene};
use e2e::netsim::traffic::{Requests, Sessions};
use e2e::netsim::{Block, Line, line};
use e2e::poll::{eventually, pass};

const ONE_WAY: Duration = Duration::from_millis(10);
/// How often a new visitor comes, with one request.
const BEAT: Duration = Duration::from_millis(25);
/// How many visitors stay, and ask every 100 ms.
const STAYING: usize = 8;
/// The client's first wait for QUIC beside HTTP/2, shorter than the 30 s that it has by default.
const PROBE_SECONDS: &str = "5";
/// For so long traffic goes on before and after something happens.
const CALM: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// The processes and this one must not wait for others.
const NICENESS: i32 = -15;

/// A figure of one round: what it is, and its value.
type Figure = (&'static str, String);

fn main() {
    // Without it the figures of a busy machine are worse.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let runtime = tokio::runtime::Runtime::new();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let mut columns = vec![];
    for _ in 0..rounds {
        let (Some(first), Some(second)) = (line(), line()) else {
            return;
        };
        let mut column = blocked_from_the_start(first).await;
        column.extend(dies_and_comes_back(second).await);
        columns.push(column);
    }
    println!(
        "round trip {:?}; a new visitor every {BEAT:?}, {STAYING} who stay; --quic-probe {PROBE_SECONDS}, not 30, for \
         the return",
        ONE_WAY * 2
    );
    for row in 0..columns.first().map_or(0, Vec::len) {
        let figures = columns.iter().map(|column| &column[row].1);
        let figures: String = figures.map(|figure| format!("{figure:>16}")).collect();
        println!("{:<56}{figures}", columns[0][row].0);
    }
}

async fn play(line: Line, block: Block, flags: &[&str]) -> Scene {
    line.both(|conditions| {
        conditions.delay = ONE_WAY;
        conditions.block = block;
    });
    scene(line, flags).await
}

async fn blocked_from_the_start(line: Line) -> Vec<Figure> {
    let scene = play(line, Block::Udp, &[]).await;
    let answered = scene.entrance.ask().await.expect("an answer");
    vec![
        (
            "UDP blocked from the start: URL after",
            seconds(scene.announced - scene.began),
        ),
        (
            "  first request served after",
            seconds(answered - scene.began),
        ),
    ]
}

async fn dies_and_comes_back(line: Line) -> Vec<Figure> {
    let scene = play(line, Block::Nothing, &["--quic-probe", PROBE_SECONDS]).await;
    let sessions = Sessions::start(&scene.entrance, STAYING).await;
    let sessions = sessions.expect("visits");
    let requests = Requests::start(&scene.entrance, BEAT);
    let before = pass(CALM).await;
    assert!(requests.first_served(before).is_some(), "nobody is served");
    let died = scene.blocks(Block::Udp);
    let mut figures = dies(&scene, died, &requests, &sessions).await;
    drop(requests);
    figures.extend(comes_back(&scene, died).await);
    figures
}

async fn dies(
    scene: &Scene,
    died: Instant,
    requests: &Requests,
    sessions: &Sessions,
) -> Vec<Figure> {
    eventually("HTTP/2 serves", || scene.client.tunnels_over("HTTP/2") > 0).await;
    let took_over = died.elapsed();
    eventually("the old visits are cut", || sessions.are_over()).await;
    pass(CALM).await;
    let served = requests.first_served(died).expect("visits are served");
    let silence = requests.longest_wait_since(died).expect("answers");
    let cuts: Vec<_> = sessions
        .cuts()
        .iter()
        .map(|cut| seconds(*cut - died))
        .collect();
    vec![
        ("UDP dies: HTTP/2 serves after", seconds(took_over)),
        ("  no visitor had an answer for", seconds(silence)),
        (
            "  first answer to one who came after it",
            seconds(served.ended - died),
        ),
        ("  requests that failed", requests.failed().to_string()),
        (
            "  visits that were cut",
            format!("{} of {STAYING}", cuts.len()),
        ),
        (
            "    the last of them after",
            cuts.last().cloned().unwrap_or_default(),
        ),
    ]
}

async fn comes_back(scene: &Scene, died: Instant) -> Vec<Figure> {
    let sessions = Sessions::start(&scene.entrance, STAYING).await;
    let sessions = sessions.expect("visits");
    let requests = Requests::start(&scene.entrance, BEAT);
    let quic = scene.client.tunnels_over("QUIC");
    let back = scene.blocks(Block::Nothing);
    // A probe that has just failed is followed by one after ten seconds, or twenty.
    let tunnels = || scene.client.tunnels_over("QUIC");
    while tunnels() == quic && back.elapsed() < CALM * 20 {
        pass(BEAT).await;
    }
    let took = back.elapsed();
    assert!(tunnels() > quic, "QUIC does not serve after {took:?}");
    let (now, answers) = (pass(CALM).await, sessions.answers());
    assert!(requests.first_served(now).is_some(), "nobody is served");
    eventually("those who stay are served", || sessions.answers() > answers).await;
    let away = format!("{:.0} s", (back - died).as_secs_f64());
    let longest = requests.longest_wait_since(back).expect("answers");
    vec![
        ("UDP comes back after", away),
        ("  QUIC carries new visits after", seconds(took)),
        ("  no visitor had an answer for", seconds(longest)),
        ("  requests that failed", requests.failed().to_string()),
        (
            "  visits that were cut",
            format!("{} of {STAYING}", sessions.cuts().len()),
        ),
    ]
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
