//! How visits end: a clean end is passed on as one, and nothing else ever looks like one.
//!
//! The clocks that end what is silent are an hour here, so that only a real sign of life or death
//! ends a visit soon.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::origin::{http, reset};
use e2e::panics;
use e2e::poll::{eventually, soon};
use e2e::relay::relay;
use e2e::stage::{
    Stage, drain_to_end, drain_to_reset, half_closing_service, half_closing_visitor, patient,
    patient_stage, pour, pour_until_stuck, report, sip, stage, stage_with,
};
use e2e::transport::Over;
use e2e::visitor::{alert, get, handshake, tls_config, visit, visit_with};
use rstest::rstest;
use rustls::version::TLS12;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tunnel_common::splice::options::Timeouts;
use tunnel_common::tls::{self, any_certificate::AnyCertificate};

const MB: usize = 1_000_000;

#[rstest]
#[tokio::test]
async fn a_visitor_who_has_sent_his_request_and_half_closes_gets_all_of_a_long_answer(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (visitor, local) = stage.visit().await;
    half_closing_visitor(visitor, local, 100 * MB).await;
}

#[rstest]
#[tokio::test]
async fn a_service_that_half_closes_first_still_gets_all_of_a_long_upload(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (visitor, local) = stage.visit().await;
    half_closing_service(visitor, local, 20 * MB).await;
}

/// A stage on which the rest of a visit that broke is waited for no longer than this.
async fn stage_lingering(over: Over, linger: Duration) -> Stage {
    let timeouts = move || Timeouts {
        linger,
        ..patient()
    };
    let relay = move |config: &mut tunnel_server::config::Config| {
        config.timeouts.splice = timeouts();
    };
    stage_with(over, relay, move |config| {
        config.timeouts.splice = timeouts();
    })
    .await
}

#[rstest]
#[tokio::test]
async fn an_end_without_close_notify_is_a_cut_for_the_service_and_no_end(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage_lingering(over, Duration::from_millis(100)).await;
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"half a req").await.expect("sends");
    visitor.flush().await.expect("sends");
    sip(&mut local, 10).await;
    // FIN on TCP, beneath a TLS that knows nothing of it.
    let (tcp, _) = visitor.get_mut();
    tcp.shutdown().await.expect("half-closes");
    assert_eq!(drain_to_reset(&mut local).await, 0);
    drain_to_reset(&mut visitor).await;
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_ends_without_close_notify_still_gets_his_answer(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"a request").await.expect("sends");
    visitor.flush().await.expect("sends");
    sip(&mut local, 9).await;
    let (tcp, _) = visitor.get_mut();
    tcp.shutdown().await.expect("half-closes");
    local.write_all(b"the answer").await.expect("answers");
    local.shutdown().await.expect("ends");
    let mut answer = Vec::new();
    soon("the answer", visitor.read_to_end(&mut answer))
        .await
        .expect("a clean end");
    assert_eq!(answer, b"the answer");
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_an_upload_is_a_reset_for_the_service(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut visitor, MB).await.expect("uploads");
    sip(&mut local, MB).await;
    reset(visitor.into_inner().0);
    let since = Instant::now();
    drain_to_reset(&mut local).await;
    report("visitor's RST to the service", since);
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_is_noticed_though_the_service_does_not_read(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour_until_stuck(&mut visitor).await.expect("uploads");
    reset(visitor.into_inner().0);
    let since = Instant::now();
    soon("the service's socket tells of it", local_error(&local)).await;
    report("visitor's RST to a service that does not read", since);
    drain_to_reset(&mut local).await;
}

/// Waits until the socket is broken, without reading what has arrived.
async fn local_error(local: &TcpStream) {
    local
        .ready(tokio::io::Interest::ERROR)
        .await
        .expect("is registered");
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_breaks_off_after_his_request_is_noticed_though_the_service_is_silent(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    visitor.write_all(b"a long poll").await.expect("sends");
    visitor.shutdown().await.expect("half-closes");
    assert_eq!(drain_to_end(&mut local).await, 11);
    reset(visitor.into_inner().0);
    let since = Instant::now();
    soon("the service's socket tells of it", local_error(&local)).await;
    report("visitor's RST after half-close to the service", since);
}

#[rstest]
#[tokio::test]
async fn a_service_that_resets_in_the_middle_of_an_answer_is_a_reset_for_the_visitor(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    pour(&mut local, 100_000).await.expect("answers");
    sip(&mut visitor, 100_000).await;
    reset(local);
    let since = Instant::now();
    assert_eq!(drain_to_reset(&mut visitor).await, 0);
    report("service's RST to the visitor", since);
}

#[rstest]
#[tokio::test]
async fn a_service_that_dies_while_the_visitor_reads_slowly_is_a_reset_in_the_end(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    let (mut visitor, mut local) = stage.visit().await;
    let poured = pour_until_stuck(&mut local).await.expect("answers");
    reset(local);
    let got = drain_to_reset(&mut visitor).await;
    assert!(got < poured, "{got} of {poured} came, and then a reset");
}

#[rstest]
#[tokio::test]
async fn the_answer_of_a_service_that_refuses_a_small_upload_unread_arrives_before_the_reset(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    for turn in 0..10 {
        let (mut visitor, local) = stage.visit().await;
        visitor.write_all(&[b'x'; 5000]).await.expect("uploads");
        visitor.flush().await.expect("uploads");
        answer_and_close_unread(local).await;
        let (mut got, mut answer) = (Ok(1), Vec::new());
        while matches!(got, Ok(1..)) {
            got = soon("the answer", visitor.read_buf(&mut answer)).await;
        }
        assert_eq!(answer, b"413", "turn {turn}, and then {got:?}");
        got.expect_err("an answer that the service cut off is not complete");
    }
}

#[rstest]
#[tokio::test]
async fn the_answer_of_a_service_that_refuses_a_large_upload_arrives_before_the_reset(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    for turn in 0..10 {
        let (visitor, local) = stage.visit().await;
        let (mut read, mut write) = split(visitor);
        let uploading = tokio::spawn(async move { pour(&mut write, 100 * MB).await });
        answer_and_close_unread(local).await;
        let (mut got, mut answer) = (Ok(1), Vec::new());
        while matches!(got, Ok(1..)) {
            got = soon("the answer", read.read_buf(&mut answer)).await;
        }
        assert_eq!(answer, b"413", "turn {turn}, and then {got:?}");
        got.expect_err("an answer that the service cut off is not complete");
        let upload = soon("the upload ends", uploading).await.expect("no panic");
        upload.expect_err("nobody took it");
    }
}

/// Answers at once and closes with bytes unread: the kernel then sends RST behind the answer.
async fn answer_and_close_unread(mut local: TcpStream) {
    let mut first = [0];
    let begun = soon("the upload begins", local.peek(&mut first)).await;
    assert_eq!(begun.ok(), Some(1));
    local.write_all(b"413").await.expect("answers");
}

#[rstest]
#[tokio::test]
async fn a_service_that_answers_and_closes_first_and_a_visitor_who_follows_both_end_cleanly(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    for turn in 0..200 {
        let (mut visitor, mut local) = stage.visit().await;
        visitor.write_all(b"GET /").await.expect("sends");
        visitor.flush().await.expect("sends");
        sip(&mut local, 5).await;
        local.write_all(b"200 OK").await.expect("answers");
        local.shutdown().await.expect("closes");
        assert_eq!(drain_to_end(&mut visitor).await, 6, "turn {turn}");
        visitor.shutdown().await.expect("closes");
        assert_eq!(drain_to_end(&mut local).await, 0, "turn {turn}");
        let (tcp, _) = visitor.get_ref();
        assert!(tcp.take_error().expect("is open").is_none(), "turn {turn}");
    }
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_closes_first_and_a_service_that_follows_both_end_cleanly(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = patient_stage(over).await;
    for turn in 0..200 {
        let (mut visitor, mut local) = stage.visit().await;
        visitor.write_all(b"GET /").await.expect("sends");
        visitor.shutdown().await.expect("half-closes");
        assert_eq!(drain_to_end(&mut local).await, 5, "turn {turn}");
        local.write_all(b"200 OK").await.expect("answers");
        drop(local);
        assert_eq!(drain_to_end(&mut visitor).await, 6, "turn {turn}");
    }
}

#[rstest]
#[tokio::test]
async fn an_answer_that_had_ended_before_a_pausing_visitor_read_it_ends_cleanly(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    // Probed every few milliseconds, so that the pause is one for all who watch.
    let quick = || Timeouts {
        probe: Duration::from_millis(5),
        ..patient()
    };
    let panics = panics::watch();
    let relay = |config: &mut tunnel_server::config::Config| config.timeouts.splice = quick();
    let mut stage = stage_with(over, relay, |config| config.timeouts.splice = quick()).await;
    // Less than the tunnel's window, and far more than the sockets to such a visitor hold.
    const ANSWER: usize = 3 * MB;
    for _ in 0..3 {
        let (visitor, mut local) = stage.narrow_visit().await;
        pour(&mut local, ANSWER).await.expect("answers");
        local.shutdown().await.expect("ends");
        let mut looks = 0;
        eventually("the end of the answer waits at the relay", || {
            looks += 1;
            looks > 60
        })
        .await;
        let (mut read, mut write) = split(visitor);
        assert_eq!(drain_to_end(&mut read).await, ANSWER);
        write.shutdown().await.expect("ends");
        assert_eq!(drain_to_end(&mut local).await, 0);
    }
    stage.agent.stop().await;
    stage.relay.stop().await;
    assert_eq!(panics.count(), 0, "tasks that panicked");
}

#[rstest]
#[tokio::test]
async fn a_visitor_with_no_protocol_in_common_gets_the_alert_that_says_so(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("x").await);
    let agent = e2e::agent::publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    for turn in 0..50 {
        let error = visit_with(relay.public, &host, tls_config(&[b"h2"])).await;
        let error = error.expect_err("nothing in common");
        assert_eq!(
            alert(&error),
            Some(AlertDescription::NoApplicationProtocol),
            "turn {turn}: {error}"
        );
    }
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_knows_only_tls_1_2_is_served(#[values(Over::Quic, Over::H2)] over: Over) {
    let mut stage = stage(over).await;
    let tls = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS12])
        .expect("TLS 1.2")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
        .with_no_client_auth();
    let (mut visitor, mut local) = stage.visit_with(Arc::new(tls)).await;
    let version = visitor.get_ref().1.protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
    visitor.write_all(b"old").await.expect("sends");
    visitor.shutdown().await.expect("half-closes");
    assert_eq!(drain_to_end(&mut local).await, 3);
    local.write_all(b"and served").await.expect("answers");
    local.shutdown().await.expect("ends");
    assert_eq!(drain_to_end(&mut visitor).await, 10);
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_comes_again_resumes_by_a_ticket_that_came_with_the_first_answer(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let mut stage = stage(over).await;
    let tls = tls_config(&[]);
    let (mut first, mut local) = stage.visit_with(tls.clone()).await;
    first.write_all(b"?").await.expect("sends");
    sip(&mut local, 1).await;
    let nothing = first.get_ref().0.try_read(&mut [0; 1]);
    let nothing = nothing.expect_err("nobody has answered yet");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    local.write_all(b"!").await.expect("answers");
    sip(&mut first, 1).await;

    let (second, _local) = stage.visit_with(tls).await;
    let kind = second.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
}

#[rstest]
#[tokio::test]
async fn a_visitor_who_leaves_in_the_handshake_takes_nobody_with_him(
    #[values(Over::Quic, Over::H2)] over: Over,
) {
    let (relay, origin) = (relay().await, http("still here").await);
    let agent = e2e::agent::publish(over, &relay, origin.address).await;
    let host = agent.host().await;
    let mut kept = visit(relay.public, &host).await.expect("visits");
    for _ in 0..20 {
        let tcp = TcpStream::connect(relay.public).await.expect("connects");
        let dropped = handshake(tcp, &host, tls_config(&[b"http/1.1"]));
        // Dropped at its first pause: the hello is sent, and nobody waits for an answer.
        let _ = futures_now(dropped).await;
    }
    let body = e2e::visitor::get_on(&mut kept, &host).await;
    assert_eq!(body.expect("an answer"), "still here");
    let other = get(relay.public, &host).await.expect("an answer");
    assert_eq!(other, "still here");
}

/// Polls once and drops.
async fn futures_now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}
