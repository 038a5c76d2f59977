//! How a connection is closed with a code, from either end.

use super::super::connection::{Broken, connect, serve};
use super::harness::{settings, soon};
use crate::h2::Purpose;
use crate::wire::code::Code;

const PIPE_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn the_agent_hears_why_the_relay_closes_and_closes_itself() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let relay = async {
        let (opener, driver) = connect(near, &settings()).await.expect("connects");
        let visit = opener.open(Purpose::Visit).await.expect("opens");
        let closing = async {
            // Whether it hears of the answer or of the end first is all the same.
            let _ = opener.close(Code::Replaced).await;
        };
        let (ended, ()) = tokio::join!(driver, closing);
        drop(visit);
        ended.expect("ends well");
    };
    let agent = async {
        let mut acceptor = serve(far, &settings()).await.expect("a relay");
        let mut visits = vec![];
        while let Some(stream) = acceptor.accept().await {
            visits.push(stream.expect("no error"));
        }
        assert_eq!(visits.len(), 1);
        assert_eq!(acceptor.closed(), Some(Code::Replaced));
    };
    tokio::join!(relay, agent);
}

#[tokio::test]
async fn the_relay_hears_why_the_agent_closes() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (opener, driver) = connect(near, &settings()).await.expect("connects");
    let agent = async {
        let mut acceptor = serve(far, &settings()).await.expect("a relay");
        acceptor.close(Code::Draining);
        while acceptor.accept().await.is_some() {}
        assert_eq!(acceptor.closed(), None);
        // Its end of the pipe stays: what the relay still writes must not break before it reads.
        acceptor
    };
    let (ended, _acceptor) = tokio::join!(driver, agent);
    assert!(
        matches!(ended, Err(Broken::Closed(Code::Draining))),
        "{ended:?}"
    );
    assert!(opener.open(Purpose::Visit).await.is_err());
}

#[tokio::test]
async fn an_agent_that_knows_no_such_request_says_so_and_the_relay_need_not_wait() {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (opener, driver) = connect(near, &settings()).await.expect("connects");
    let agent = async {
        let mut agent = h2::server::handshake(far).await.expect("a relay");
        while let Some(Ok((_, mut respond))) = agent.accept().await {
            let respond: &mut h2::server::SendResponse<bytes::Bytes> = &mut respond;
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    };
    tokio::select! {
        _ = driver => panic!("it does not close"),
        () = agent => panic!("it does not close"),
        told = soon(opener.close(Code::Draining)) => {
            assert!(told.expect("an answer").is_err());
        }
    }
}
