//! Resets, broken connections, and what must survive them.

use bytes::Bytes;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::connection::{OpenError, serve};
use super::harness::{SIDES, code_of, fill, probe, put, rest, settings, tunnel};
use crate::h2::{CONNECTION_WINDOW, Purpose, STREAM_WINDOW, client_builder, code};
use crate::splice::end::End as _;
use crate::wire::code::Code;

const CODES: [Code; 3] = [Code::VisitorAborted, Code::Limit, Code::Other(99_999)];

#[tokio::test]
async fn an_abort_is_a_reset_at_the_other_end_with_its_code() {
    let mut tunnel = tunnel().await;
    for (side, sent) in SIDES
        .into_iter()
        .flat_map(|side| CODES.map(|code| (side, code)))
    {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        one.write_all(b"half").await.expect("writes");
        let mut half = [0; 4];
        other.read_exact(&mut half).await.expect("reads");
        one.abort(sent);
        let error = rest(&mut other).await.expect_err("no clean end");
        assert_eq!(code_of(&error), Some(sent), "{side:?}");
        let error = other.write_all(b"x").await.expect_err("nobody is there");
        assert_eq!(code_of(&error), Some(sent));
        assert_eq!(
            code_of(&probe(&mut other).await.expect_err("tells")),
            Some(sent)
        );
        let error = other.shutdown().await.expect_err("no end gets there");
        assert_eq!(code_of(&error), Some(sent));
        assert!(!other.is_discarding());
    }
    tunnel.works().await;
}

#[tokio::test]
async fn a_dropped_stream_is_reset_and_what_goes_to_it_is_discarded() {
    let mut tunnel = tunnel().await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        one.write_all(b"half").await.expect("writes");
        drop(one);
        let error = rest(&mut other).await.expect_err("no clean end");
        assert_eq!(code_of(&error), Some(Code::None), "{side:?}");
        probe(&mut other)
            .await
            .expect("a peer that has enough is no fault");
        assert_eq!(put(&mut other, b"unwanted").await.expect("is dropped"), 8);
        assert!(other.is_discarding());
    }
    tunnel.works().await;
}

#[tokio::test]
async fn what_was_finished_survives_the_reset_behind_it() {
    let mut tunnel = tunnel().await;
    let whole = vec![3; 200 * 1024];
    for side in SIDES {
        for sent in [Code::None, Code::Limit] {
            let (mut one, mut other) = tunnel.visit_from(side).await;
            one.write_all(&whole).await.expect("writes");
            one.shutdown().await.expect("ends");
            one.abort(sent);
            // It goes out behind all of that, and the other end waits for it before it reads.
            let stopped = async {
                loop {
                    if let Err(error) = other.write(b"x").await {
                        break error;
                    }
                    tokio::task::yield_now().await;
                }
            };
            assert_eq!(code_of(&stopped.await), Some(sent), "{side:?}");
            assert!(rest(&mut other).await.expect("ends cleanly") == whole);
        }
    }
    tunnel.works().await;
}

#[tokio::test]
async fn a_concluded_stream_arrives_whole_and_takes_no_more() {
    let mut tunnel = tunnel().await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        one.write_all(b"alert").await.expect("writes");
        one.conclude();
        drop(one);
        assert_eq!(rest(&mut other).await.expect("ends cleanly"), b"alert");
        while !other.is_discarding() {
            put(&mut other, b"unwanted").await.expect("is dropped");
            tokio::task::yield_now().await;
        }
        other
            .shutdown()
            .await
            .expect("an end that nobody wants is no error");
    }
    tunnel.works().await;
}

#[tokio::test]
async fn a_reset_before_the_end_never_looks_like_one() {
    let mut tunnel = tunnel().await;
    for side in SIDES {
        let (mut one, mut other) = tunnel.visit_from(side).await;
        assert_eq!(fill(&mut one).await, STREAM_WINDOW as usize);
        one.abort(Code::Limit);
        let error = rest(&mut other).await.expect_err("cut short");
        assert_eq!(code_of(&error), Some(Code::Limit));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_on_every_stream() {
    let mut tunnel = tunnel().await;
    let (mut near, mut far) = tunnel.visit().await;
    near.write_all(b"half").await.expect("writes");
    tunnel.agent.abort();
    let error = rest(&mut near).await.expect_err("no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "{error}");
    let error = near.write_all(b"x").await.expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "{error}");
    probe(&mut near).await.expect("reading tells");
    near.shutdown().await.expect_err("no end gets there");
    rest(&mut far).await.expect_err("no clean end");
    let opened = tunnel.opener.open(Purpose::Visit).await;
    assert!(matches!(
        opened,
        Err(OpenError::Gone(_) | OpenError::Closed)
    ));
}

#[tokio::test]
async fn what_had_arrived_whole_survives_the_connection() {
    for side in SIDES {
        let mut tunnel = tunnel().await;
        let (mut one, mut other) = tunnel.visit_from(side).await;
        one.write_all(b"whole").await.expect("writes");
        one.shutdown().await.expect("ends");
        // A later stream's byte has arrived: so has this end.
        let (mut late, mut behind) = tunnel.visit_from(side).await;
        late.write_all(b"x").await.expect("writes");
        behind.read_u8().await.expect("reads");
        tunnel.agent.abort();
        behind.read_u8().await.expect_err("broken");
        assert_eq!(rest(&mut other).await.expect("ends"), b"whole", "{side:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_none_of_ours_is_refused_and_the_connection_goes_on() {
    let (near, far) = tokio::io::duplex(1024);
    let agent = async {
        let mut acceptor = serve(far, &settings()).await.expect("a relay");
        let accepted = acceptor.accept().await.expect("goes on");
        assert_eq!(accepted.expect("accepts").0, Purpose::Control);
        acceptor.close(Code::Draining);
        assert!(acceptor.accept().await.is_none());
    };
    let relay = async {
        let handshake = client_builder(CONNECTION_WINDOW).handshake::<_, Bytes>(near);
        let (mut requests, connection) = handshake.await.expect("an agent");
        let mut request = Purpose::Visit.request();
        *request.uri_mut() = Uri::from_static("https://qtun/other");
        let (response, _send) = requests.send_request(request, false).expect("opens");
        let refusing = async {
            let error = response.await.expect_err("refused");
            assert_eq!(error.reason().map(code), Some(Code::Protocol));
            let request = Purpose::Control.request();
            requests.send_request(request, false).expect("opens")
        };
        let (ended, _stream) = tokio::join!(connection, refusing);
        let reason = ended.expect_err("closed").reason();
        assert_eq!(reason.map(code), Some(Code::Draining));
    };
    tokio::join!(agent, relay);
}
