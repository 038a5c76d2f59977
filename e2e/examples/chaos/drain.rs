//! One of two is asked to end, while visitors come, wait for slow answers, and keep connections.

use std::time::{Duration, Instant};

use e2e::netsim::traffic::{Entrance, Sessions};
use e2e::poll::pass;
use e2e::process::Process;
use e2e::transport::Over;
use rustix::process::Signal;

use crate::agents::with_replica;
use crate::relays::two;
use crate::stage::{Watch, happens};
use crate::story::Outcome;

/// For so long a relay takes connections after it was asked to end.
const DELAY: &[&str] = &["--drain-delay", "1"];
/// A slow answer: it takes some five seconds over this line, less than the programs wait for it.
const ANSWER_BYTES: u64 = 3_000_000;
/// How many wait for one.
const WAITING: usize = 4;
const BITS_PER_SECOND: u64 = 20_000_000;
/// How many keep a connection and ask nothing.
const IDLE: usize = 8;
/// For so long visitors come after one has ended: more than any clock of the tunnel.
const AFTERMATH: Duration = Duration::from_secs(10);

/// One of two relays.
pub(crate) async fn relay(over: Over) -> Outcome {
    let mut two = two(over, DELAY).await;
    two.line
        .both(|conditions| conditions.bits_per_second = Some(BITS_PER_SECOND));
    drain(&two.entrance, &two.first_entrance, &mut two.first.process).await
}

/// One of two replicas.
pub(crate) async fn replica(over: Over) -> Outcome {
    let (mut scene, _replica) = with_replica(over).await;
    scene
        .line
        .both(|conditions| conditions.bits_per_second = Some(BITS_PER_SECOND));
    drain(&scene.entrance, &scene.entrance, &mut scene.client.process).await
}

/// Asks `process` to end, while new visitors come to `entrance`, and the others are at `its_own`.
async fn drain(entrance: &Entrance, its_own: &Entrance, process: &mut Process) -> Outcome {
    let mut watch = Watch::start(entrance, 0).await;
    let idle = Sessions::idle(its_own, IDLE).await.expect("visits");
    for _ in 0..WAITING {
        watch.download(its_own, ANSWER_BYTES).await;
    }
    process.signal(Signal::TERM);
    let fault = Instant::now();
    if happens(|| !process.runs()).await {
        let (took, status) = (fault.elapsed().as_secs_f64(), process.ends().await);
        watch.note(format!("it ended after {took:.1} s"));
        if !status.success() {
            watch.wrong(&format!("it ended by {status}"));
        }
    } else {
        watch.wrong("it did not end within a minute");
    }
    pass(AFTERMATH).await;
    let cut = idle.cuts().len();
    watch.note(format!("{cut} of {IDLE} idle connections were closed"));
    let mut outcome = watch.end(fault, None).await;
    // They are requests that had begun.
    outcome.requests += outcome.visits;
    outcome.failed += outcome.cut;
    outcome
}
