//! UDP is blocked before the agent starts, while it serves, and no longer.

use std::time::Instant;

use e2e::netsim::Block;
use e2e::netsim::scene::{Scene, scene};

use crate::stage::{STAYING, Watch, calm_line, happens};
use crate::story::Outcome;

/// QUIC is tried again after 5 s, not 30.
const PROBE: &[&str] = &["--quic-probe", "5"];
const BITS_PER_SECOND: u64 = 20_000_000;
/// Sixteen seconds of that line: QUIC is back before it is done.
const DOWNLOAD_BYTES: u64 = 40_000_000;

async fn blocked(flags: &[&str], bits_per_second: Option<u64>) -> Scene {
    let line = calm_line();
    line.both(|conditions| {
        conditions.block = Block::Udp;
        conditions.bits_per_second = bits_per_second;
    });
    scene(line, flags).await
}

/// From the agent's start to the first answer.
pub(crate) async fn udp_never() -> Outcome {
    let scene = blocked(&[], None).await;
    let answered = scene.entrance.ask().await;
    let answered = answered.expect("an answer");
    let announced = scene.announced - scene.began;
    Outcome {
        outage: Some(answered - scene.began),
        requests: 1,
        notes: vec![format!("the URL after {:.2} s", announced.as_secs_f64())],
        ..Outcome::default()
    }
}

pub(crate) async fn udp_dies() -> Outcome {
    let scene = scene(calm_line(), &[]).await;
    let mut watch = Watch::start(&scene.entrance, STAYING).await;
    let fault = scene.blocks(Block::Udp);
    watch
        .waits_for("HTTP/2 serves", || scene.client.tunnels_over("HTTP/2") > 0)
        .await;
    watch.end(fault, None).await
}

pub(crate) async fn udp_returns() -> Outcome {
    let scene = blocked(PROBE, None).await;
    let mut watch = Watch::start(&scene.entrance, STAYING).await;
    let back = returns(&scene, &mut watch).await;
    watch.end(back, None).await
}

pub(crate) async fn return_in_download() -> Outcome {
    let scene = blocked(PROBE, Some(BITS_PER_SECOND)).await;
    let mut watch = Watch::start(&scene.entrance, STAYING).await;
    watch.download(&scene.entrance, DOWNLOAD_BYTES).await;
    let back = returns(&scene, &mut watch).await;
    if watch.is_downloaded() {
        watch.wrong("the download ended before QUIC was back");
    }
    happens(|| watch.is_downloaded()).await;
    watch.end(back, None).await
}

/// UDP passes again; waits until QUIC serves.
async fn returns(scene: &Scene, watch: &mut Watch) -> Instant {
    let back = scene.blocks(Block::Nothing);
    watch
        .waits_for("QUIC serves", || scene.client.tunnels_over("QUIC") > 0)
        .await;
    let took = back.elapsed().as_secs_f64();
    watch.note(format!("QUIC served {took:.1} s after UDP passed again"));
    back
}
