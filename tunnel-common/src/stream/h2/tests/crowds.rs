//! Many streams, streams that are not read, and peers that try h2's patience.

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::super::leaving::Leaving;
use super::super::settings::Settings;
use super::super::stream::H2Stream;
use super::harness::{SIDES, agent, fill, probe, rest, settings, soon, tunnel, tunnel_over};
use crate::budget::MemoryBudget;
use crate::h2::{CONNECTION_WINDOW, Purpose, STREAM_WINDOW, client_builder, server_builder};
use crate::splice::end::End as _;
use crate::stream::h2::connection::connect;
use crate::wire::code::Code;

#[tokio::test]
async fn a_reader_that_stands_pins_a_window_and_holds_up_nobody() {
    let mut tunnel = tunnel().await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        assert_eq!(fill(&mut one).await, STREAM_WINDOW as usize);
        probe(&mut other).await.expect("is whole");
        assert_eq!(other.pinned_bytes(), u64::from(STREAM_WINDOW));
        assert_eq!(fill(&mut one).await, 0, "keeping gives no credit");
        tunnel.works().await;
        let (mut near, mut far) = tunnel.visit_from(side).await;
        let megabyte = vec![1; 1024 * 1024];
        let sending = async {
            near.write_all(&megabyte).await.expect("writes");
            near.shutdown().await.expect("ends");
        };
        let ((), got) = tokio::join!(sending, rest(&mut far));
        assert!(got.expect("reads") == megabyte);

        let mut window = vec![0; STREAM_WINDOW as usize];
        other.read_exact(&mut window).await.expect("reads");
        assert_eq!(fill(&mut one).await, STREAM_WINDOW as usize);
    }
}

#[tokio::test]
async fn single_bytes_that_nobody_has_looked_at_end_nothing_where_memory_is_short() {
    // h2 itself bears 16,448 of them on a connection of 8 MiB, the least.
    const BYTES: usize = 20_000;
    let small = Settings {
        budget: MemoryBudget::new(0),
        ..settings()
    };
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut tunnel = tunnel_over(near, far, small).await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        for _ in 0..BYTES {
            other.write_all(b"x").await.expect("writes");
        }
        tunnel.works().await;
        other.shutdown().await.expect("ends");
        assert_eq!(rest(&mut one).await.expect("reads").len(), BYTES);
    }
}

#[tokio::test]
async fn what_is_kept_for_a_reader_that_stands_does_not_count_as_unread() {
    const AT_ONCE: usize = 10;
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut tasks = JoinSet::new();
    let (_, mut accepted) = agent(far, settings(), &mut tasks);
    // Ours bears half a million single bytes unread, this one no more than come at once.
    let (mut relay, driver) = client_builder(CONNECTION_WINDOW)
        .data_frame_budget(AT_ONCE * 255)
        .handshake::<_, Bytes>(near)
        .await
        .expect("connects");
    tasks.spawn(async move {
        let _ = driver.await;
    });
    let request = Purpose::Visit.request();
    let (answer, send) = relay.send_request(request, false).expect("opens");
    let (_, mut far) = accepted.recv().await.expect("accepts");
    let body = answer.await.expect("is answered").into_body();
    let (exit, _leaving) = Leaving::new();
    let mut near = H2Stream::accepted(body, send, exit);
    for some in bytes.chunks(AT_ONCE) {
        for byte in some {
            far.write_all(&[*byte]).await.expect("writes");
        }
        soon(std::future::pending::<()>()).await;
        // What a splice does twice a second.
        probe(&mut near).await.expect("is whole");
    }
    assert_eq!(near.read_u8().await.expect("reads"), bytes[0]);
    far.shutdown().await.expect("ends");
    assert!(rest(&mut near).await.expect("reads") == bytes[1..]);
}

#[tokio::test]
async fn a_storm_of_aborts_ends_nothing() {
    let mut tunnel = tunnel().await;
    for _ in 0..5_000 {
        let opened = tunnel.opener.open(Purpose::Visit).await;
        let mut near = opened.expect("opens");
        near.write_all(b"hello").await.expect("writes");
        near.abort(Code::VisitorAborted);
        while tunnel.accepted.try_recv().is_ok() {}
    }
    while soon(tunnel.accepted.recv()).await.is_some() {}
    tunnel.works().await;
}

#[tokio::test]
async fn an_agent_that_answers_nothing_gets_a_bounded_number_of_streams() {
    // Whoever comes later goes to the next tunnel, and is not lost with this one.
    const BOUND: usize = 256;
    const VISITORS: usize = 2_000;
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let (opener, mut driver) = connect(near, &settings()).await.expect("connects");
    let server = server_builder(CONNECTION_WINDOW);
    let handshake = server.handshake::<_, Bytes>(far);
    let mut streams = Vec::new();
    while streams.len() < VISITORS
        && let Some(opened) = soon(opener.open(Purpose::Visit)).await
    {
        streams.push(opened.expect("opens"));
    }
    assert!(streams.len() <= BOUND, "{}", streams.len());
    drop(streams);
    assert!(soon(&mut driver).await.is_none());
    assert!(
        soon(opener.open(Purpose::Visit)).await.is_none(),
        "what was dropped is still unanswered"
    );
    drop((driver, handshake));
    assert!(opener.open(Purpose::Visit).await.is_err());
}

#[tokio::test]
async fn beyond_the_agents_limit_a_stream_waits_for_its_turn() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (opener, driver) = connect(near, &settings()).await.expect("connects");
    let mut builder = server_builder(CONNECTION_WINDOW);
    let agent = async {
        let mut agent = builder
            .max_concurrent_streams(1)
            .handshake::<_, Bytes>(far)
            .await
            .expect("a relay");
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = agent.accept().await {
            let send = respond.send_response(http::Response::new(()), false);
            held.push((request.into_body(), send.expect("is open")));
        }
    };
    let relay = async {
        let mut first = opener.open(Purpose::Visit).await.expect("opens");
        first.write_all(b"x").await.expect("writes");
        assert!(soon(first.read_u8()).await.is_none());
        assert!(soon(opener.open(Purpose::Visit)).await.is_none());
        first.abort(Code::Limit);
        opener.open(Purpose::Visit).await.expect("has its turn");
    };
    tokio::select! {
        _ = driver => panic!("the connection ended"),
        () = agent => panic!("the agent ended"),
        () = relay => {}
    }
}
