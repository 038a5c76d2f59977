//! What h2 takes for an attack unless it is told otherwise, and what it would let pass.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

use super::super::connection::{Acceptor, connect, serve};
use super::harness::{
    Path, SIDES, Side, Tunnel, code_of, rest, settings, soon, tunnel, tunnel_over,
};
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

/// A tunnel, one side of which has aborted more streams than h2 allows errors, and what the other
/// has sent to them is still under way.
struct Aborted {
    tunnel: Tunnel,
    path: Path,
    under_way: OwnedMutexGuard<()>,
}

impl Aborted {
    async fn by(side: Side) -> Self {
        const STREAMS: usize = 1_200;
        let (path, near, far) = Path::new(PIPE_BYTES);
        let mut tunnel = tunnel_over(near, far, settings()).await;
        let mut visits = vec![];
        for _ in 0..STREAMS {
            let (mut near, mut far) = tunnel.visit().await;
            far.write_all(b"x").await.expect("writes");
            near.read_u8().await.expect("is answered");
            visits.push(match side {
                Side::Relay => (near, far),
                Side::Agent => (far, near),
            });
        }
        let under_way = path.hold(side).await;
        for (_, other) in &mut visits {
            other.write_all(b"late").await.expect("writes");
        }
        soon(std::future::pending::<()>()).await;
        for (one, _) in &mut visits {
            one.abort(Code::Limit);
        }
        // The resets have left, and nothing of the streams is there any more, when the rest comes.
        for (_, other) in &mut visits {
            let error = rest(other).await.expect_err("no clean end");
            assert_eq!(code_of(&error), Some(Code::Limit));
        }
        Self {
            tunnel,
            path,
            under_way,
        }
    }

    /// A visit that goes through has come behind all that was under way.
    async fn arrives(mut self) {
        drop(self.under_way);
        self.tunnel.works().await;
        drop(self.path);
    }
}

#[tokio::test]
async fn what_is_under_way_to_streams_that_were_aborted_ends_nothing() {
    for side in SIDES {
        Aborted::by(side).await.arrives().await;
    }
}

#[tokio::test]
async fn what_comes_more_than_a_second_behind_the_abort_ends_nothing() {
    const SECOND: Duration = Duration::from_secs(1);
    let [by_relay, by_agent] = SIDES.map(Aborted::by);
    let (by_relay, by_agent) = (by_relay.await, by_agent.await);
    // h2 goes by the machine's clock, which no test can move.
    let begin = Instant::now();
    while begin.elapsed() <= SECOND {
        tokio::task::yield_now().await;
    }
    by_relay.arrives().await;
    by_agent.arrives().await;
}

#[tokio::test]
async fn visitors_who_go_before_the_agent_answers_do_not_look_like_an_attack() {
    const VISITORS: usize = 2_000;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (opener, driver) = connect(near, &settings()).await.expect("connects");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let _ = driver.await;
    });
    let mut gone = 0;
    while gone < VISITORS
        && let Some(opened) = soon(opener.open(Purpose::Visit)).await
    {
        opened.expect("opens").abort(Code::VisitorAborted);
        gone += 1;
    }
    assert!(gone > 20);
    soon(std::future::pending::<()>()).await;

    // An agent with all of h2's defaults: it bears 20 resets of streams that it has not accepted.
    let agent = async {
        let mut agent = h2::server::handshake(far).await.expect("a relay");
        let mut accepted = vec![];
        while let Some(request) = agent.accept().await {
            let (request, mut respond) = request.expect("the connection is whole");
            let send = respond.send_response(Response::new(()), false);
            let mut send = send.expect("nobody has reset it");
            let sent = send.send_data(Bytes::from_static(b"x"), false);
            sent.expect("nobody has reset it");
            accepted.push((request.into_body(), send));
        }
    };
    let last = async {
        let mut near = opener.open(Purpose::Visit).await.expect("has room");
        near.read_u8().await.expect("is answered")
    };
    tokio::select! {
        () = agent => panic!("the connection ended"),
        answer = last => assert_eq!(answer, b'x'),
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
