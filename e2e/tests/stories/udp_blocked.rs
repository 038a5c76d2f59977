//! The two binaries, with the clocks that they have by default, where UDP does not pass: from the
//! start, from some time on, and no longer.

use std::time::{Duration, Instant};

use e2e::netsim::scene::{Scene, scene};
use e2e::netsim::traffic::{Requests, Sessions};
use e2e::netsim::{Block, Line, line};
use e2e::poll::eventually;

/// How often a visitor comes.
const BEAT: Duration = Duration::from_millis(50);
/// How many visitors stay.
const STAYING: usize = 4;
/// The user is promised 1 s; a busy machine may take another.
const UNTIL_URL: Duration = Duration::from_secs(2);
/// Those whose visit had begun when the tunnel died, and a busy machine has more of them; who came after
/// it waits for the next tunnel.
const FEW: usize = 3;
/// By then nobody waits any more for a tunnel that is dead.
const UNTIL_ALL_IS_WELL: Duration = Duration::from_secs(10);

async fn play(line: Line, block: Block, flags: &[&str]) -> Scene {
    line.both(|conditions| conditions.block = block);
    scene(line, flags).await
}

/// Waits until visitors who come from now on are served.
async fn goes_on(requests: &Requests) {
    let now = Instant::now();
    let is_served = || requests.first_served(now).is_some();
    eventually("visitors are served", is_served).await;
}

#[tokio::test]
async fn where_udp_is_blocked_the_client_has_its_url_within_a_second() {
    let Some(line) = line() else { return };
    let scene = play(line, Block::Udp, &[]).await;
    let took = scene.announced - scene.began;
    println!("UDP blocked: the URL after {took:?}");
    assert!(took < UNTIL_URL, "{took:?}");
    scene.entrance.ask().await.expect("an answer");
    assert_eq!(scene.client.tunnels_over("QUIC"), 0);
}

#[tokio::test]
async fn when_udp_dies_its_visits_fail_within_ten_seconds_and_new_ones_are_served_by_then() {
    let Some(line) = line() else { return };
    let scene = play(line, Block::Nothing, &[]).await;
    let is_quic = || scene.client.tunnels_over("QUIC") == 1;
    eventually("the tunnel is QUIC", is_quic).await;
    let sessions = Sessions::start(&scene.entrance, STAYING).await;
    let sessions = sessions.expect("visits");
    let requests = Requests::start(&scene.entrance, BEAT);
    goes_on(&requests).await;

    let died = scene.blocks(Block::Udp);
    eventually("HTTP/2 serves", || scene.client.tunnels_over("HTTP/2") > 0).await;
    goes_on(&requests).await;
    let served = died.elapsed();
    eventually("the old visits fail", || sessions.are_over()).await;
    let cut = sessions.cuts().pop().expect("some") - died;
    println!("UDP died: new visits after {served:?}, the last old one failed after {cut:?}");
    let failed = requests.failed();
    assert!(failed <= FEW, "{failed} requests failed");
    assert!(served < UNTIL_ALL_IS_WELL, "{served:?}");
    assert!(cut < UNTIL_ALL_IS_WELL, "{cut:?}");
}

#[tokio::test]
async fn when_udp_comes_back_quic_takes_the_new_visits_and_no_visit_is_lost() {
    let Some(line) = line() else { return };
    let scene = play(line, Block::Udp, &["--quic-probe", "1"]).await;
    let sessions = Sessions::start(&scene.entrance, STAYING).await;
    let sessions = sessions.expect("visits");
    let requests = Requests::start(&scene.entrance, BEAT);
    goes_on(&requests).await;

    let back = scene.blocks(Block::Nothing);
    eventually("QUIC serves", || scene.client.tunnels_over("QUIC") == 1).await;
    println!("UDP came back: QUIC serves after {:?}", back.elapsed());
    goes_on(&requests).await;
    let answers = sessions.answers();
    let more = || sessions.answers() >= answers + 5 * STAYING as u64;
    eventually("those who stay are served", more).await;
    assert!(sessions.cuts().is_empty(), "{:?}", sessions.cuts());
    assert_eq!(requests.failed(), 0);
}
