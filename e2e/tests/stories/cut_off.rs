//! What visitors get when the agent or the relay goes in the middle of a visit, or the local service is
//! not there: a reset, and soon.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::agent::{config, new_key, start};
use e2e::arrival::knock;
use e2e::hello::hello;
use e2e::origin::{http, origin};
use e2e::pair::serving;
use e2e::poll::until_ok;
use e2e::process::{client, folder};
use e2e::relay::{relay, relay_with};
use e2e::stage::{
    Stage, drain, drain_to_reset, patient, patient_stage, pour, report, sip, stage_with,
};
use e2e::transport::Over;
use e2e::visitor::{get, visit};
use rstest::rstest;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tunnel_client::resolve::{Resolve, Resolving};

#[rstest]
#[tokio::test]
async fn an_agent_that_is_killed_is_a_reset_for_its_visitors_after_the_idle_timeout(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| {
        config.timeouts.splice = patient();
        config.timeouts.quic.idle = Duration::from_secs(2);
    });
    let relay = relay.await;
    let origin = origin(async |mut stream: TcpStream| {
        pour(&mut stream, 10_000).await.expect("begins to answer");
        // Waits, with the answer unfinished, until the agent is gone: the kernel closes for it.
        let _ = drain(&mut stream).await;
    });
    let origin = origin.await;
    let (server, local) = (relay.api.to_string(), origin.address.to_string());
    let flags = over.with(&["--server", &server, "--local", &local]);
    let mut agent = client(&flags, folder());
    let url = agent.line_after("URL: ").await;
    let host = url.trim_start_matches("https://");
    let host = host.split(':').next().expect("a host");
    let mut visitor = visit(relay.public, host).await.expect("visits");
    sip(&mut visitor, 10_000).await;
    agent.signal(Signal::KILL);
    agent.ends().await;
    let since = Instant::now();
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    report("agent's death to the visitor, 2 s idle timeout", since);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_vanishes_resets_both_ends_of_its_visits(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 10_000).await.expect("answers");
    sip(&mut visitor, 10_000).await;
    drop(stage.agent);
    drain_to_reset(&mut visitor).await;
    drain_to_reset(&mut local).await;
}

/// A patient stage, but for the time that visits have when one of the two is to end: none.
async fn graceless_stage(over: Over) -> Stage {
    let relay = |config: &mut tunnel_server::config::Config| {
        config.timeouts.splice = patient();
        config.drain_grace = Duration::ZERO;
    };
    stage_with(over, relay, |config| {
        config.timeouts.splice = patient();
        config.timeouts.drain_grace = Duration::ZERO;
    })
    .await
}

#[rstest]
#[tokio::test]
async fn an_agent_that_is_stopped_without_grace_resets_both_ends_of_its_visits_at_once(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = graceless_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 10_000).await.expect("answers");
    sip(&mut visitor, 10_000).await;
    let since = Instant::now();
    stage.agent.stop().await;
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    assert_eq!(drain_to_reset(&mut local).await, 0);
    report("stopped agent to both ends", since);
}

#[rstest]
#[tokio::test]
async fn a_relay_that_is_stopped_without_grace_resets_both_ends_of_its_visits_at_once(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = graceless_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 10_000).await.expect("answers");
    sip(&mut visitor, 10_000).await;
    let since = Instant::now();
    stage.relay.stop().await;
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    assert_eq!(drain_to_reset(&mut local).await, 0);
    report("stopped relay to both ends", since);
}

#[rstest]
#[tokio::test]
async fn a_service_that_is_not_there_is_a_reset_for_visitors_and_one_line_in_the_log(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    // A port that was free a moment ago.
    let gone = http("never").await.address;
    let (server, local) = (relay.api.to_string(), gone.to_string());
    let flags = over.with(&["--server", &server, "--local", &local]);
    let mut agent = client(&flags, folder());
    let url = agent.line_after("URL: ").await;
    let host = url.trim_start_matches("https://");
    let host = host.split(':').next().expect("a host");
    for _ in 0..5 {
        let since = Instant::now();
        // TLS 1.3: the visitor's handshake may be over before he hears of it.
        match visit(relay.public, host).await {
            Ok(mut visitor) => assert_eq!(drain_to_reset(&mut visitor).await, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        report("refused by the service", since);
    }
    let line = format!("the local service {local} refused the connection");
    agent.logs(&line).await;
    assert_eq!(agent.log().matches(&line).count(), 1, "{}", agent.log());
}

#[rstest]
#[tokio::test]
async fn a_visit_to_an_agent_that_is_frozen_ends_at_the_deadline_and_it_keeps_its_tunnel(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const DEADLINE: Duration = Duration::from_millis(300);
    let relay = relay_with(|config| config.timeouts.splice.first_answer = Some(DEADLINE)).await;
    let (server, origin) = (relay.api.to_string(), http("thawed").await);
    let local = origin.address.to_string();
    let flags = over.with(&["--server", &server, "--local", &local]);
    let client = serving(client(&flags, folder())).await;
    client.process.freezes().await;
    let since = Instant::now();
    let visitor = knock(relay.public, &hello(client.host())).await;
    assert_eq!(drain_to_reset(&mut visitor.expect("connects")).await, 0);
    assert!(since.elapsed() >= DEADLINE);
    report("frozen agent to the visitor", since);
    client.process.signal(Signal::CONT);
    let body = until_ok("it serves again", async || {
        get(relay.public, client.host()).await
    });
    assert_eq!(body.await, "thawed");
    let log = client.process.log();
    assert_eq!(log.matches("tunnel serves").count(), 1, "{log}");
}

/// Finds the relay, and never the local service.
#[derive(Debug)]
struct OnlyTheRelay(std::net::SocketAddr);

impl Resolve for OnlyTheRelay {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            if port != self.0.port() {
                std::future::pending::<()>().await;
            }
            Ok(vec![self.0])
        })
    }
}

#[rstest]
#[tokio::test]
async fn a_service_that_does_not_answer_the_dial_is_a_reset_after_the_dial_timeout(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, silent) = (relay().await, e2e::stage::local().await);
    let mut config = config(over, &relay, new_key(), silent.address);
    config.resolver = Arc::new(OnlyTheRelay(relay.api));
    config.timeouts.local_dial = Duration::from_millis(300);
    let agent = start(config);
    let host = agent.host().await;
    let since = Instant::now();
    let mut visitor = visit(relay.public, &host).await.expect("visits");
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    assert!(since.elapsed() >= Duration::from_millis(300));
}
