//! The relay is killed, frozen, found elsewhere, or one of two.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::netsim::programs::{publish_at, server_at};
use e2e::netsim::traffic::{Entrance, near_echo};
use e2e::netsim::{FAR, FAR_TWO, Line};
use e2e::origin::Origin;
use e2e::pair::{Client, Server};
use e2e::poll::{pass, until_ok};
use e2e::process::folder;
use e2e::transport::Over;
use rustix::process::Signal;

use crate::stage::{STAYING, Watch, calm_line, kill, one_of_each};
use crate::story::Outcome;

const UNTIL_STARTED_AGAIN: Duration = Duration::from_secs(2);
const FROZEN: Duration = Duration::from_secs(60);
/// For so long visitors come after one of two is gone: more than any clock of the tunnel.
const AFTERMATH: Duration = Duration::from_secs(10);
/// What the relay is called where its name changes.
const NAME: &str = "relay.test";

/// Killed, and started again with the same key and ports.
pub(crate) async fn killed(over: Over) -> Outcome {
    let mut scene = one_of_each(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    let fault = kill(&mut scene.server.process).await;
    pass(UNTIL_STARTED_AGAIN).await;
    let (api, public) = (scene.server.api, scene.server.visitors().port());
    let folder = scene.server.process.folder();
    scene.server = server_at(&scene.line, api, public, &[], folder).await;
    watch.end(fault, Some(Instant::now())).await
}

/// Frozen for a minute.
pub(crate) async fn stopped(over: Over) -> Outcome {
    let scene = one_of_each(over).await;
    let watch = Watch::start(&scene.entrance, STAYING).await;
    scene.server.process.freezes().await;
    let fault = pass(FROZEN).await;
    scene.server.process.signal(Signal::CONT);
    watch.end(fault, Some(Instant::now())).await
}

/// Its name leads to another relay with the same key from the moment on at which it is killed.
pub(crate) async fn dns(over: Over) -> Outcome {
    let line = Arc::new(calm_line());
    line.far().add_address(FAR_TWO).expect("an address");
    let origin = near_echo(&line);
    let mut first = server_at(&line, (FAR, 0).into(), 0, &[], folder()).await;
    let copy = folder();
    copy_files(first.process.folder().path(), copy.path());
    let (api, public) = (first.api.port(), first.visitors().port());
    let second = server_at(&line, (FAR_TWO, api).into(), public, &[], copy).await;

    leads_to(&line, first.api);
    let relay = [(&*format!("{NAME}:{api}"), &*first.key)];
    let client = publish_at(&line, &relay, origin.address, over.flags(), folder()).await;
    let entrance = Entrance::new(&line, &first, &client);
    let watch = Watch::start(&entrance, STAYING).await;
    leads_to(&line, second.api);
    entrance.leads_to(&[second.visitors()]);
    let fault = kill(&mut first.process).await;
    watch.end(fault, None).await
}

/// From now on the agent finds the relay's name at this address.
fn leads_to(line: &Line, relay: SocketAddr) {
    let hosts = format!("127.0.0.1 localhost\n{} {NAME}\n", relay.ip());
    line.near().hosts(&hosts).expect("a file");
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file");
    }
}

/// Two relays, an agent that serves at both, and visitors whose name has both addresses.
pub(crate) struct Two {
    pub(crate) first: Server,
    _second: Server,
    _client: Client,
    _origin: Origin,
    /// Both relays.
    pub(crate) entrance: Entrance,
    /// The first alone.
    pub(crate) first_entrance: Entrance,
    pub(crate) line: Arc<Line>,
}

/// Both relays with these flags; waits until the agent serves at both.
pub(crate) async fn two(over: Over, flags: &[&str]) -> Two {
    let line = Arc::new(calm_line());
    line.far().add_address(FAR_TWO).expect("an address");
    let origin = near_echo(&line);
    let first = server_at(&line, (FAR, 0).into(), 0, flags, folder()).await;
    let (api, public) = (first.api.port(), first.visitors().port());
    let second = server_at(&line, (FAR_TWO, api).into(), public, flags, folder()).await;
    let addresses = [&first, &second].map(|server| server.api.to_string());
    let relays = [
        (&*addresses[0], &*first.key),
        (&*addresses[1], &*second.key),
    ];
    let client = publish_at(&line, &relays, origin.address, over.flags(), folder()).await;
    let entrance = Entrance::new(&line, &first, &client);
    for server in [&first, &second] {
        let alone = entrance.at(&[server.visitors()]);
        until_ok("each relay serves", async || alone.ask().await).await;
    }
    Two {
        first_entrance: entrance.at(&[first.visitors()]),
        entrance: entrance.at(&[first.visitors(), second.visitors()]),
        first,
        _second: second,
        _client: client,
        _origin: origin,
        line,
    }
}

/// One of two is killed: visitors find the other by its address.
pub(crate) async fn one_of_two(over: Over) -> Outcome {
    let mut two = two(over, &[]).await;
    let watch = Watch::start(&two.entrance, STAYING).await;
    let fault = kill(&mut two.first.process).await;
    pass(AFTERMATH).await;
    watch.end(fault, None).await
}
