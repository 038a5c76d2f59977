//! The visitors of a line, and what they come by: the harness tested, not the tunnel.

use std::net::SocketAddr;

use e2e::netsim::download::Download;
use e2e::netsim::scene::scene;
use e2e::netsim::{FAR, FAR_TWO, line};
use e2e::poll::{eventually, soon};
use e2e::process::{folder, spawn};
use rustix::process::Signal;
use tokio::process::Command;

/// Nobody listens there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(FAR), 1);
const MB: u64 = 1_000_000;

#[tokio::test]
async fn a_visitor_takes_the_next_address_of_a_name_when_one_refuses() {
    let Some(line) = line() else { return };
    let scene = scene(line, &[]).await;
    let two = scene.entrance.at(&[NOBODY, scene.server.visitors()]);
    for _ in 0..4 {
        two.ask().await.expect("an answer");
    }
    two.leads_to(&[NOBODY]);
    two.ask().await.expect_err("nobody there");
    scene
        .entrance
        .ask()
        .await
        .expect("the other entrance is as it was");
}

#[tokio::test]
async fn a_program_that_runs_sees_that_a_name_leads_elsewhere() {
    let Some(line) = line() else { return };
    let names = |address| format!("{address} relay.test\n");
    line.near().hosts(&names(FAR)).expect("a file");
    let look = "getent ahosts relay.test | head -n 1";
    let looks = format!("{look}; until {look} | grep -q {FAR_TWO}; do sleep 0.05; done; echo seen");
    let mut command = Command::new("sh");
    command.args(["-c", &looks]);
    let mut program = spawn(line.near().command(&command), folder());
    let first = program.line().await.expect("an address");
    assert!(first.starts_with(&FAR.to_string()), "{first}");
    line.near().hosts(&names(FAR_TWO)).expect("a file");
    assert_eq!(program.line().await.as_deref(), Some("seen"));
}

#[tokio::test]
async fn a_download_ends_whole_or_with_an_error() {
    let Some(line) = line() else { return };
    let scene = scene(line, &[]).await;
    let whole = Download::start(&scene.entrance, MB).await.expect("begins");
    soon("all of it", whole.ends()).await.expect("every byte");

    let cut = Download::start(&scene.entrance, 100_000 * MB).await;
    let cut = cut.expect("begins");
    eventually("some of it", || cut.received() > MB).await;
    scene.server.process.signal(Signal::KILL);
    let end = soon("its end", cut.ends()).await;
    end.expect_err("cut");
}
