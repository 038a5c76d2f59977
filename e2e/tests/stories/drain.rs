//! How a relay ends that is asked to: whoever waits for an answer gets it, and agents look elsewhere.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::agent::{new_key, publish, start};
use e2e::arrival::visited;
use e2e::held::{ANSWER, Held, held};
use e2e::origin::http;
use e2e::pair::{self, Server, server};
use e2e::peer::{self, connect};
use e2e::poll::{eventually, soon, until_ok};
use e2e::process::folder;
use e2e::relay::{relay, relay_again, relay_identity, relay_with};
use e2e::stage::{
    drain, drain_to_end, drain_to_reset, patient, patient_stage, pour, report, sip, stage_with,
    stays_silent,
};
use e2e::transport::Over;
use e2e::two_relays::two_relays;
use e2e::visitor::{get, get_on, visit};
use rstest::rstest;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tunnel_client::status::Status;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::frame::Frame;

/// Longer than a visit must be silent to be taken for one that waits for nothing.
const LONG: Duration = Duration::from_secs(3);
/// By when a visit that waits for nothing has ended.
const QUICK: Duration = Duration::from_secs(4);
/// A lone agent is back at a relay that runs again within this time.
const BACK: Duration = Duration::from_secs(5);
/// What a busy crowd is.
const CROWD: usize = 100;

#[rstest]
#[tokio::test]
async fn a_request_that_waits_for_its_answer_gets_it_from_a_relay_that_ends_however_long_it_takes(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, 1_000).await.expect("asks");
    sip(&mut local, 1_000).await;
    stage.relay.drains();
    stays_silent(&mut visitor, LONG).await;
    assert!(stage.relay.runs());
    pour(&mut local, 100_000).await.expect("answers");
    sip(&mut visitor, 100_000).await;
    assert_eq!(drain_to_end(&mut visitor).await, 0);
    assert_eq!(drain_to_end(&mut local).await, 0);
    drop(visitor);
    soon("the relay ends", stage.relay.stop()).await;
}

#[rstest]
#[tokio::test]
async fn a_visit_that_waits_for_nothing_gets_a_clean_end_at_both_ends_from_a_relay_that_ends(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, 1_000).await.expect("asks");
    sip(&mut local, 1_000).await;
    pour(&mut local, 1_000).await.expect("answers");
    sip(&mut visitor, 1_000).await;
    let since = Instant::now();
    stage.relay.drains();
    assert_eq!(drain_to_end(&mut visitor).await, 0);
    assert_eq!(drain_to_end(&mut local).await, 0);
    report("asked to end to both ends of a keep-alive", since);
    assert!(since.elapsed() < QUICK);
    drop(visitor);
    soon("the relay ends", stage.relay.stop()).await;
    report("asked to end to the end", since);
}

#[rstest]
#[tokio::test]
async fn a_relay_ends_such_a_visit_itself_where_the_agent_does_not(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay().await;
    let peer = connect(over, relay.api, &new_key(), CROWD as u32).await;
    let (mut control, _) = peer.register(peer::hello(1, 0)).await;
    let (mut visitor, mut arrived) = visited(&relay, &peer).await;
    arrived.exchanges(&mut visitor).await;
    let answer = [b'~'; 10_000];
    arrived.send.write_all(&answer).await.expect("goes on");
    sip(&mut visitor, answer.len()).await;
    relay.drains();
    assert_eq!(control.next().await, Some(Frame::Draining { spread: 0 }));
    assert_eq!(drain(&mut visitor).await.0, 0);
    let mut rest = vec![];
    let read = soon("the end", arrived.recv.read_to_end(&mut rest)).await;
    assert_eq!(read.expect("is clean"), 0);
    drop((visitor, arrived));
    assert_eq!(peer.closed_with().await, Code::Draining);
    soon("the relay ends", relay.stop()).await;
}

#[rstest]
#[tokio::test]
async fn when_the_grace_is_over_the_visits_that_are_left_are_reset(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = |config: &mut tunnel_server::config::Config| {
        config.timeouts.splice = patient();
        config.drain_grace = Duration::from_millis(500);
    };
    let mut stage = stage_with(over, relay, |_| {}).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, 1_000).await.expect("asks");
    sip(&mut local, 1_000).await;
    stage.relay.stop().await;
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    assert_eq!(drain_to_reset(&mut local).await, 0);
}

#[rstest]
#[tokio::test]
async fn an_agent_that_says_hello_to_a_relay_that_drains_is_told_to_come_again(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let relay = relay_with(|config| config.drain_delay = LONG).await;
    let early = connect(over, relay.api, &new_key(), 1).await;
    let (mut told, _) = early.register(peer::hello(1, 0)).await;
    let late = connect(over, relay.api, &new_key(), 1).await;
    let mut control = late.control().await;
    relay.drains();
    assert_eq!(told.next().await, Some(Frame::Draining { spread: 0 }));
    let hello = Frame::Hello(peer::hello(2, 0));
    control.writer.send(&hello).await.expect("sends");
    match control.next().await {
        Some(Frame::Refused(refused)) => {
            assert_eq!(refused.code, Code::Draining.number());
            assert_eq!(refused.retry_after, Some(1_000));
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(early.closed_with().await, Code::Draining);
}

/// The status that a page of the admin port has.
async fn status(admin: SocketAddr, path: &str) -> u16 {
    let mut tcp = TcpStream::connect(admin).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.expect("asks");
    let mut page = String::new();
    let reading = soon("the page", tcp.read_to_string(&mut page));
    reading.await.expect("it closes behind the page");
    let status = page.split(' ').nth(1).expect("a status line");
    status.parse().expect("a status")
}

#[rstest]
#[tokio::test]
async fn visitors_are_served_for_the_delay_and_then_the_port_is_closed(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const DELAY: Duration = Duration::from_secs(2);
    let relay = relay_with(|config| {
        config.admin_addr = Some(([127, 0, 0, 1], 0).into());
        config.drain_delay = DELAY;
    });
    let (relay, origin) = (relay.await, held().await);
    let admin = relay.admin.expect("is bound");
    let agent = publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let (public, busy_host) = (relay.public, host.clone());
    let busy = tokio::spawn(async move { get(public, &busy_host).await });
    origin.is_asked(1).await;
    assert_eq!(status(admin, "/readyz").await, 200);
    assert_eq!(status(admin, "/healthz").await, 200);

    let since = Instant::now();
    relay.drains();
    until_ok("it is not ready any more", async || {
        let status = status(admin, "/readyz").await;
        if status == 503 { Ok(()) } else { Err(status) }
    })
    .await;
    visit(public, &host).await.expect("is served all the same");
    assert_eq!(status(admin, "/healthz").await, 200);
    let closed = async || match TcpStream::connect(public).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(other.map(|_| "accepted")),
    };
    until_ok("the port is closed", closed).await;
    assert!(since.elapsed() >= DELAY);
    assert_eq!(status(admin, "/readyz").await, 503);
    origin.release();
    let answer = busy.await.expect("no panic").expect("an answer");
    assert_eq!(answer, ANSWER);
    soon("the relay ends", relay.stop()).await;
}

#[tokio::test]
async fn those_who_connect_to_ask_about_health_and_do_not_ask_keep_nobody_out_for_long() {
    let relay = relay_with(|config| config.admin_addr = Some(([127, 0, 0, 1], 0).into())).await;
    let admin = relay.admin.expect("is bound");
    let mut silent = vec![];
    for _ in 0..2 * CROWD {
        silent.push(TcpStream::connect(admin).await.expect("connects"));
    }
    for mut one in silent.drain(..CROWD / 2) {
        assert_eq!(drain_to_end(&mut one).await, 0);
    }
    drop(silent);
    assert_eq!(status(admin, "/healthz").await, 200);
}

/// A crowd whose requests the local service holds.
async fn crowd(visitors: SocketAddr, host: &str, origin: &Held) -> JoinSet<String> {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let host = host.to_owned();
        crowd.spawn(async move {
            let mut visitor = visit(visitors, &host).await.expect("visits");
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            visitor.write_all(request.as_bytes()).await.expect("asks");
            let mut answer = vec![];
            let reading = soon("all of the answer", visitor.read_to_end(&mut answer));
            reading.await.expect("ends cleanly");
            String::from_utf8(answer).expect("text")
        });
    }
    origin.is_asked(CROWD).await;
    crowd
}

async fn all_are_answered(mut crowd: JoinSet<String>) {
    let mut answered = 0;
    while let Some(answer) = crowd.join_next().await {
        assert!(answer.expect("an answer").ends_with(ANSWER));
        answered += 1;
    }
    assert_eq!(answered, CROWD);
}

#[rstest]
#[tokio::test]
async fn a_hundred_requests_that_wait_when_a_server_or_a_client_is_told_to_end_are_all_answered(
    #[values(Over::Quic, Over::H2)] over: Over,
    #[values("server", "client")] who: &str,
) {
    let (mut server, origin) = (server(&[]).await, held().await);
    let mut client = pair::publish(over, &server, origin.address, &[], folder()).await;
    let crowd = crowd(server.visitors(), client.host(), &origin).await;
    let ending = match who {
        "server" => &mut server.process,
        _ => &mut client.process,
    };
    ending.signal(Signal::TERM);
    ending.logs("ending, as asked").await;
    origin.release();
    all_are_answered(crowd).await;
    let since = Instant::now();
    assert_eq!(ending.exit_code().await, 0, "{}", ending.log());
    report(&format!("the last answer to the end of the {who}"), since);
    assert!(!ending.log().contains("the grace is over"));
}

/// A server with somebody who waits for an answer that does not come.
async fn busy(over: Over, origin: &Held) -> (Server, pair::Client, e2e::visitor::Visitor) {
    let server = server(&[]).await;
    let client = pair::publish(over, &server, origin.address, &[], folder()).await;
    let mut visitor = visit(server.visitors(), client.host())
        .await
        .expect("visits");
    visitor
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("asks");
    origin.is_asked(1).await;
    (server, client, visitor)
}

#[rstest]
#[tokio::test]
async fn a_second_signal_ends_at_once(
    #[values(Over::Quic, Over::H2)] over: Over,
    #[values("server", "client")] who: &str,
) {
    let origin = held().await;
    let (mut server, mut client, mut visitor) = busy(over, &origin).await;
    let ending = match who {
        "server" => &mut server.process,
        _ => &mut client.process,
    };
    ending.signal(Signal::TERM);
    ending.logs("ending, as asked").await;
    stays_silent(&mut visitor, LONG).await;
    assert!(ending.runs());
    ending.signal(Signal::TERM);
    assert_eq!(ending.exit_code().await, 0);
    drain(&mut visitor).await.1.expect_err("is cut");
}

#[rstest]
#[tokio::test]
async fn a_lone_agent_is_back_at_a_restarted_relay_within_five_seconds(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let identity = relay_identity();
    let first = relay_with(|config| config.identity = identity.clone().into()).await;
    let origin = http("back again").await;
    let agent = publish(over, &first, origin.address).await;
    let (host, port) = (agent.host().await, first.api.port());
    first.stop().await;
    agent.is_cut_off().await;
    let restarted = relay_again(identity, port);
    let (restarted, since) = (restarted.await, Instant::now());
    agent.serves().await;
    report("the relay is up to the agent is back", since);
    assert!(since.elapsed() < BACK);
    let body = get(restarted.public, &host).await;
    assert_eq!(body.expect("an answer"), "back again");
}

#[rstest]
#[tokio::test]
async fn with_two_relays_behind_one_name_the_agent_is_at_the_other_before_the_first_ends(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    const DELAY: Duration = Duration::from_secs(3);
    let relays = two_relays(|config| config.drain_delay = DELAY).await;
    let origin = http("either way").await;
    let agent = start(relays.agent(over, new_key(), origin.address));
    let host = agent.host().await;
    let mut status = agent.status();
    status.mark_unchanged();
    let (first, second) = (relays.first.public, relays.second.public);
    let mut kept = visit(first, &host)
        .await
        .expect("the agent is at the first");
    visit(second, &host)
        .await
        .expect_err("and not at the other");

    let since = Instant::now();
    relays.first.drains();
    let mut visits = 0;
    until_ok("the agent is at the other relay", async || {
        // Whoever comes to the first meanwhile is served.
        get(first, &host).await.expect("an answer");
        visits += 1;
        get(second, &host).await
    })
    .await;
    report(
        &format!("asked to end to the other relay, {visits} visits"),
        since,
    );
    assert!(relays.first.runs(), "the first has not ended");
    let body = get_on(&mut kept, &host).await.expect("an answer");
    assert_eq!(body, "either way");
    drop(kept);
    eventually("the first ends", || !relays.first.runs()).await;
    let body = get(second, &host).await;
    assert_eq!(body.expect("an answer"), "either way");
    assert_ne!(*status.borrow(), Status::Connecting);
    assert!(
        !status.has_changed().expect("it runs"),
        "the status stood still"
    );
}
