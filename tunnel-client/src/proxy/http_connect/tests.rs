use tokio::io::duplex;

use super::*;

const PIPE_BYTES: usize = 64 * 1024;

fn relay() -> Target {
    Target::new("relay.example", 4433)
}

fn credentials() -> Credentials {
    Credentials::new("aladdin", "open sesame").expect("credentials")
}

/// What becomes of a request that the proxy answers with these pieces and an end: the outcome, and
/// what is left to be read.
async fn answered(
    pieces: &[&[u8]],
    credentials: Option<&Credentials>,
) -> (Result<(), ProxyError>, Vec<u8>) {
    let (mut ours, mut proxys) = duplex(PIPE_BYTES);
    let relay = relay();
    let answering = async {
        for piece in pieces {
            proxys.write_all(piece).await.expect("takes it");
            tokio::task::yield_now().await;
        }
        proxys.shutdown().await.expect("ends");
    };
    let (outcome, ()) = tokio::join!(connect(&mut ours, &relay, credentials), answering);
    let mut left = vec![];
    ours.read_to_end(&mut left).await.expect("reads");
    (outcome, left)
}

async fn refused(answer: &[u8]) -> ProxyError {
    answered(&[answer], None)
        .await
        .0
        .expect_err("is no connection")
}

#[test]
fn a_request_names_the_target_and_who_asks() {
    let name = request(&relay(), None);
    assert_eq!(
        name,
        "CONNECT relay.example:4433 HTTP/1.1\r\nHost: relay.example:4433\r\n\r\n"
    );
    let address = request(&Target::new("::1", 443), Some(&credentials()));
    assert_eq!(
        address,
        "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
         Proxy-Authorization: Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
    );
}

#[tokio::test]
async fn an_answer_is_read_however_it_is_cut_and_what_stands_behind_it_stays() {
    let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n\x16\x03the relay's";
    for cut in 0..=answer.len() {
        let (head, tail) = answer.split_at(cut);
        let (outcome, left) = answered(&[head, tail], None).await;
        outcome.expect("a connection");
        assert_eq!(left, b"\x16\x03the relay's", "cut at {cut}");
    }
}

#[tokio::test]
async fn sloppy_answers_of_old_proxies_are_taken() {
    for answer in [
        &b"HTTP/1.0 200 OK\n\n"[..],
        b"HTTP/1.0 200\r\n\r\n",
        b"HTTP/1.1 204 Fine\r\n bad field\r\n\xff: \xff\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
    ] {
        let (outcome, left) = answered(&[answer], None).await;
        outcome.expect("a connection");
        assert_eq!(left, b"");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_proxys_words_on_one_line() {
    let error = refused(b"HTTP/1.1 403 Filtered\x1b[31m\r\nX: y\r\n\r\nbody").await;
    let text = error.to_string();
    // An escape character is in no reason phrase.
    assert!(matches!(error, ProxyError::NotUnderstood(_)), "{text}");
    let error = refused(b"HTTP/1.1 403 Filt\xc3\xa9red \xff\r\nX: y\r\n\r\nbody").await;
    let text = error.to_string();
    assert!(text.contains("403 Filt\u{e9}red"), "{text}");
    let long = format!("HTTP/1.1 503 {}\r\n\r\n", "x".repeat(4000));
    let text = refused(long.as_bytes()).await.to_string();
    assert!(text.contains("503") && text.len() < 300, "{text}");
    let moved = refused(b"HTTP/1.1 302 Found\r\nLocation: https://x\r\n\r\n").await;
    assert!(matches!(moved, ProxyError::Refused(_)), "{moved}");
    let switched = refused(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    assert!(matches!(switched, ProxyError::Refused(_)), "{switched}");
}

#[tokio::test]
async fn a_proxy_that_wants_to_know_us_is_told_apart_by_what_it_wants() {
    let basic = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: basic realm=x\r\n\r\n";
    let bare = b"HTTP/1.1 407 Who\r\n\r\n";
    let tinyproxys = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\r\n";
    for answer in [&basic[..], bare, tinyproxys] {
        let error = refused(answer).await;
        assert!(matches!(error, ProxyError::CredentialsWanted), "{error}");
        assert!(error.to_string().contains("--proxy-credentials"), "{error}");
        let (outcome, _) = answered(&[answer], Some(&credentials())).await;
        let error = outcome.expect_err("is no connection");
        assert!(matches!(error, ProxyError::CredentialsRefused), "{error}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error}");
    }
    let other =
        b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
    let (outcome, _) = answered(&[other], Some(&credentials())).await;
    let text = outcome.expect_err("is no connection").to_string();
    assert!(text.contains("Negotiate, NTLM"), "{text}");
}

#[tokio::test]
async fn what_is_no_answer_is_told_at_once() {
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\x05\xff",
        b"HTTP/2 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
    ] {
        let error = refused(garbage).await;
        assert!(
            matches!(error, ProxyError::NotUnderstood(_)),
            "{garbage:?}: {error}"
        );
    }
    for cut in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTT"] {
        let error = refused(cut).await;
        assert!(matches!(error, ProxyError::Closed), "{cut:?}: {error}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_end_is_given_up() {
    let line = b"HTTP/1.1 200 OK\r\n";
    let fill =
        |bytes: usize| [&line[..], &vec![b'x'; bytes - line.len() - 4], b"\r\n\r\n"].concat();
    let (outcome, _) = answered(&[&fill(MAX_HEADER_BYTES)], None).await;
    outcome.expect("just fits");
    let error = refused(&fill(MAX_HEADER_BYTES + 1)).await;
    assert!(matches!(error, ProxyError::TooLong(_)), "{error}");
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    let error = refused(&interim).await;
    assert!(matches!(error, ProxyError::TooLong(_)), "{error}");
}
