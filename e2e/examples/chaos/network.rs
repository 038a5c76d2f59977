//! The network is away, loses one direction, big packets, or what a NAT knew.

use std::time::{Duration, Instant};

use e2e::netsim::scene::scene;
use e2e::netsim::{Direction, Line};
use e2e::poll::pass;
use e2e::transport::Over;

use crate::stage::{STAYING, Watch, calm_line, happens, one_of_each};
use crate::story::Outcome;

const HOLE: Duration = Duration::from_secs(10);
const BITS_PER_SECOND: u64 = 50_000_000;
/// Ten seconds of the line.
const DOWNLOAD_BYTES: u64 = 60_000_000;
/// It happens when so much has come.
const UNDER_WAY_BYTES: u64 = 10_000_000;
/// Packets of more bytes vanish.
const LARGEST_PACKET: usize = 1300;

/// The line is cut for so many seconds.
pub(crate) async fn cut(over: Over, seconds: u64) -> Outcome {
    let for_so_long = Duration::from_secs(seconds);
    away(over, for_so_long, |line, is_cut| {
        line.both(|conditions| conditions.cut = is_cut);
    })
    .await
}

/// Nothing passes from the agent to the relay.
pub(crate) async fn hole_upwards(over: Over) -> Outcome {
    away(over, HOLE, |line, is_cut| swallow(line.up(), is_cut)).await
}

/// Nothing passes from the relay to the agent.
pub(crate) async fn hole_downwards(over: Over) -> Outcome {
    away(over, HOLE, |line, is_cut| swallow(line.down(), is_cut)).await
}

fn swallow(direction: &Direction, is_cut: bool) {
    direction.change(|conditions| conditions.cut = is_cut);
}

async fn away(over: Over, time: Duration, switch: impl Fn(&Line, bool)) -> Outcome {
    let scene = one_of_each(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    switch(&scene.line, true);
    let fault = pass(time).await;
    switch(&scene.line, false);
    watch.end(fault, Some(Instant::now())).await
}

/// The NAT forgets all mappings while a download runs.
pub(crate) async fn nat(over: Over) -> Outcome {
    in_download(over, |line| line.nat().rebind()).await
}

/// Big packets begin to vanish while a download runs.
pub(crate) async fn mtu(over: Over) -> Outcome {
    in_download(over, |line| {
        line.both(|conditions| conditions.largest_packet = Some(LARGEST_PACKET));
    })
    .await
}

async fn in_download(over: Over, act: impl Fn(&Line)) -> Outcome {
    let line = calm_line();
    line.nat().on();
    line.both(|conditions| conditions.bits_per_second = Some(BITS_PER_SECOND));
    let scene = scene(line, over.flags()).await;
    let mut watch = Watch::start(&scene.entrance, STAYING).await;
    watch.download(&scene.entrance, DOWNLOAD_BYTES).await;
    happens(|| watch.received() > UNDER_WAY_BYTES).await;
    act(&scene.line);
    let fault = Instant::now();
    happens(|| watch.is_downloaded()).await;
    watch.end(fault, None).await
}
