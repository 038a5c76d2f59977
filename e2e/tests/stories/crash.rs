//! A relay is killed and started again: how its agents learn of it over QUIC.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use e2e::origin::http;
use e2e::pair::{at, publish, server_at};
use e2e::poll::until_ok;
use e2e::ports;
use e2e::process::{self, folder};
use e2e::transport::Over;
use e2e::visitor::get;
use rustix::process::Signal;

/// What the agent says when the relay has told it.
const TOLD: &str = "started anew";
/// What it says when it has to find out.
const SILENCE: &str = "nothing has come";

/// Kills a relay, starts it again with what `between` leaves of its keys, and gives the log of its agent when
/// that serves again.
async fn crash(between: impl FnOnce(&Path)) -> String {
    let (api, public, data, origin) = (ports::udp(), ports::tcp(), folder(), http("again").await);
    let flags = at(api.port, public.port, data.path());
    let mut first = server_at(&flags).await;
    let client = publish(Over::Quic, &first, origin.address, &[], folder()).await;
    first.process.signal(Signal::KILL);
    first.process.ends().await;
    between(&data.path().join("reset.key"));

    let second = server_at(&flags).await;
    let start = Instant::now();
    let visited = until_ok("a visitor is served", async || {
        get(second.visitors(), client.host()).await
    });
    assert_eq!(visited.await, "again");
    eprintln!("served again after {:?}", start.elapsed());
    client.process.log()
}

#[tokio::test]
async fn a_relay_that_was_killed_tells_its_agents_so_when_it_is_back() {
    let log = crash(|keys| assert!(keys.is_file())).await;
    assert!(log.contains(TOLD), "{log}");
}

#[tokio::test]
async fn a_relay_that_was_killed_and_has_lost_its_reset_keys_is_found_again_by_its_silence() {
    let log = crash(|keys| fs::remove_file(keys).expect("is there")).await;
    assert!(!log.contains(TOLD), "{log}");
    assert!(log.contains(SILENCE), "{log}");
}

#[tokio::test]
async fn a_relay_whose_reset_keys_others_may_read_does_not_start() {
    let data = folder();
    let file = data.path().join("reset.key");
    fs::write(&file, "").expect("writes");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("is ours");
    let mut server = process::server(&["--data-dir", data.path().to_str().expect("UTF-8")]);
    assert_ne!(server.exit_code().await, 0);
    server.logs("reset.key").await;
    server.logs("chmod").await;
}
