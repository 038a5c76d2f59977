//! What h2 takes for an attack unless it is told otherwise, and what it would let pass.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::super::connection::{Acceptor, connect, serve};
use super::harness::{Tunnel, rest, settings, soon, tunnel};
use crate::h2::{CONNECTION_WINDOW, Purpose, client_builder};
use crate::splice::end::End as _;
use crate::stream::h2::stream::H2Stream;
use crate::wire::code::Code;

/// Holds all that a test sends before anybody reads.
const PIPE_BYTES: usize = 4 * 1024 * 1024;

/// Accepts until the connection ends, and holds what it accepted.
async fn accept_all<T>(mut acceptor: Acceptor<T>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut held = vec![];
    while let Some(accepted) = acceptor.accept().await {
        held.push(accepted.expect("the connection is whole"));
    }
}

/// A visit that the relay knows to be answered.
async fn answered(tunnel: &mut Tunnel) -> (H2Stream, H2Stream) {
    let (mut near, far) = soon(tunnel.visit()).await.expect("there is room");
    assert!(soon(near.read_u8()).await.is_none());
    (near, far)
}

#[tokio::test]
async fn five_hundred_visitors_who_go_while_the_agent_stands_still_end_nothing() {
    const VISITORS: usize = 500;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (mut relay, driver) = client_builder(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(near)
        .await
        .expect("connects");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = driver.await;
    });
    // On another relay than ours: that resets only what the agent has answered.
    let mut opened = vec![];
    for _ in 0..VISITORS {
        relay = relay.ready().await.expect("has room");
        let request = Purpose::Visit.request();
        opened.push(relay.send_request(request, false).expect("opens"));
    }
    soon(std::future::pending::<()>()).await;
    for (_, stream) in &mut opened {
        stream.send_reset(h2::Reason::CANCEL);
    }
    drop(opened);
    soon(std::future::pending::<()>()).await;

    let agent = serve(far, &settings()).await.expect("a relay");
    let last = async {
        relay = relay.ready().await.expect("goes on");
        let request = Purpose::Visit.request();
        let (answer, _) = relay.send_request(request, true).expect("opens");
        answer.await.expect("is answered").status()
    };
    tokio::select! {
        _ = accept_all(agent) => panic!("the connection ended"),
        status = last => assert_eq!(status, StatusCode::OK),
    }
}

#[tokio::test]
async fn eleven_hundred_visitors_are_there_at_one_time() {
    const VISITORS: usize = 1_100;
    let mut tunnel = tunnel().await;
    let mut visits = vec![];
    for _ in 0..VISITORS {
        visits.push(answered(&mut tunnel).await);
    }
    for (near, far) in visits.iter_mut().rev().take(10) {
        near.write_all(b"question").await.expect("writes");
        near.shutdown().await.expect("ends");
        assert_eq!(rest(far).await.expect("reads"), b"question");
    }
    tunnel.works().await;
}

#[tokio::test]
async fn what_is_under_way_to_streams_that_were_aborted_ends_nothing() {
    const STREAMS: usize = 1_300;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (opener, driver) = connect(near, &settings()).await.expect("connects");
    let mut driver = Box::pin(driver);
    let mut tasks = JoinSet::new();
    let (arrive, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut acceptor = serve(far, &settings()).await.expect("a relay");
        while let Some(Ok((_, stream))) = acceptor.accept().await {
            let _ = arrive.send(stream);
        }
    });
    let opening = async {
        let mut nears = vec![];
        for _ in 0..STREAMS {
            let mut near = opener.open(Purpose::Visit).await.expect("opens");
            assert!(soon(near.read_u8()).await.is_none());
            nears.push(near);
        }
        nears
    };
    let mut nears = tokio::select! {
        _ = &mut driver => panic!("the connection ended"),
        nears = opening => nears,
    };
    // The relay stands still, and what comes lies in the pipe.
    let mut fars = vec![];
    while let Ok(mut far) = accepted.try_recv() {
        far.write_all(&[7; 1024]).await.expect("writes");
        fars.push(far);
    }
    assert_eq!(fars.len(), STREAMS);
    soon(std::future::pending::<()>()).await;
    for near in &mut nears {
        near.abort(Code::Limit);
    }
    let works = async {
        let mut near = opener.open(Purpose::Visit).await.expect("opens");
        near.write_all(b"question").await.expect("writes");
        near.shutdown().await.expect("ends");
        let mut far = accepted.recv().await.expect("accepts");
        assert_eq!(rest(&mut far).await.expect("reads"), b"question");
        // Behind all that was under way.
        far.write_all(b"answer").await.expect("writes");
        far.shutdown().await.expect("ends");
        assert_eq!(rest(&mut near).await.expect("reads"), b"answer");
    };
    tokio::select! {
        ended = driver => panic!("the connection ended: {ended:?}"),
        () = works => {}
    }
}

#[tokio::test]
async fn headers_beyond_16_kib_are_refused_and_the_connection_goes_on() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (mut relay, driver) = client_builder(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(near)
        .await
        .expect("connects");
    let agent = serve(far, &settings()).await.expect("a relay");
    let asking = async {
        for (kibibytes, expected) in [
            (8, StatusCode::OK),
            (20, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            (8, StatusCode::OK),
        ] {
            relay = relay.ready().await.expect("has room");
            let mut request = Purpose::Visit.request();
            let value = "x".repeat(kibibytes * 1024);
            let value = HeaderValue::from_str(&value).expect("a value");
            request.headers_mut().insert("more", value);
            let (answer, _) = relay.send_request(request, true).expect("opens");
            assert_eq!(answer.await.expect("is answered").status(), expected);
        }
    };
    tokio::select! {
        _ = driver => panic!("the connection ended"),
        _ = accept_all(agent) => panic!("the connection ended"),
        () = asking => {}
    }
}
