//! The agent is frozen, or is one of two replicas.

use std::fs;
use std::time::{Duration, Instant};

use e2e::netsim::programs::publish;
use e2e::netsim::scene::Scene;
use e2e::pair::Client;
use e2e::poll::pass;
use e2e::process::folder;
use e2e::transport::Over;
use rustix::process::Signal;

use crate::stage::{STAYING, Watch, kill, one_of_each};
use crate::story::Outcome;

const FROZEN: Duration = Duration::from_secs(20);
/// For so long visitors come after one of two is gone: more than any clock of the tunnel.
const AFTERMATH: Duration = Duration::from_secs(10);
/// The file of an agent's key.
const KEY: &str = "client.key";

/// Frozen for a while.
pub(crate) async fn stopped(over: Over) -> Outcome {
    let scene = one_of_each(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    scene.client.process.freezes().await;
    let fault = pass(FROZEN).await;
    scene.client.process.signal(Signal::CONT);
    watch.end(fault, Some(Instant::now())).await
}

/// One relay, an agent, and another with its key.
pub(crate) async fn with_replica(over: Over) -> (Scene, Client) {
    let scene = one_of_each(over).await;
    let (of_first, of_second) = (scene.client.process.folder(), folder());
    fs::copy(of_first.path().join(KEY), of_second.path().join(KEY)).expect("a key");
    let (line, origin) = (&scene.line, scene.origin.address);
    let replica = publish(line, &scene.server, origin, over.flags(), of_second).await;
    (scene, replica)
}

/// One of two is killed.
pub(crate) async fn replica_killed(over: Over) -> Outcome {
    let (mut scene, _replica) = with_replica(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    let fault = kill(&mut scene.client.process).await;
    pass(AFTERMATH).await;
    watch.end(fault, None).await
}

/// One of two freezes, for good.
pub(crate) async fn replica_frozen(over: Over) -> Outcome {
    let (scene, _replica) = with_replica(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    scene.client.process.freezes().await;
    let fault = pass(AFTERMATH).await;
    watch.end(fault, None).await
}
