//! Many streams, streams that are not read, and peers that try h2's patience.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{SIDES, fill, probe, rest, settings, soon, tunnel};
use crate::h2::{CONNECTION_WINDOW, MAX_UNANSWERED, Purpose, STREAM_WINDOW, server_builder};
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
async fn a_hundred_thousand_single_bytes_to_readers_that_stand_end_nothing() {
    const BYTES: usize = 100_000;
    const READERS: usize = 6;
    let mut tunnel = tunnel().await;
    let mut standing = Vec::new();
    for _ in 0..READERS {
        let (mut near, mut far) = tunnel.visit().await;
        for count in 0..BYTES {
            far.write_all(b"x").await.expect("writes");
            // What a splice does twice a second.
            if count % 10_000 == 0 {
                probe(&mut near).await.expect("is whole");
            }
        }
        near.read_u8().await.expect("reads");
        probe(&mut near).await.expect("is whole");
        standing.push((near, far));
    }
    tunnel.works().await;
    for (mut near, mut far) in standing {
        far.shutdown().await.expect("ends");
        assert_eq!(rest(&mut near).await.expect("reads").len(), BYTES - 1);
    }
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
    let (near, far) = tokio::io::duplex(1024 * 1024);
    let (opener, mut driver) = connect(near, &settings()).await.expect("connects");
    let server = server_builder(CONNECTION_WINDOW);
    let handshake = server.handshake::<_, bytes::Bytes>(far);
    let mut streams = Vec::new();
    for _ in 0..MAX_UNANSWERED {
        streams.push(opener.open(Purpose::Visit).await.expect("opens"));
    }
    assert!(soon(opener.open(Purpose::Visit)).await.is_none());
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
            .handshake::<_, bytes::Bytes>(far)
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
