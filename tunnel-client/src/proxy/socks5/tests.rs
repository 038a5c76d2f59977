use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const PIPE_BYTES: usize = 4096;
/// A connection, bound to 127.0.0.1:80.
const GRANTED: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 0, 80];

/// A dialogue with a proxy that says these things, each after so many bytes of ours: the outcome, what
/// we said, and what is left to be read.
async fn dialogue(
    target: &Target,
    credentials: Option<&Credentials>,
    script: &[(usize, &[u8])],
) -> (Result<(), ProxyError>, Vec<u8>, Vec<u8>) {
    let (mut ours, mut proxys) = duplex(PIPE_BYTES);
    let talking = async {
        let mut heard = vec![];
        for (bytes, says) in script {
            let mut piece = vec![0; *bytes];
            proxys.read_exact(&mut piece).await.expect("is asked");
            heard.extend(piece);
            for byte in *says {
                proxys.write_all(&[*byte]).await.expect("takes it");
                tokio::task::yield_now().await;
            }
        }
        proxys.shutdown().await.expect("ends");
        heard
    };
    let (outcome, heard) = tokio::join!(connect(&mut ours, target, credentials), talking);
    let mut left = vec![];
    ours.read_to_end(&mut left).await.expect("reads");
    (outcome, heard, left)
}

fn name() -> Target {
    Target::new("relay", 443)
}

fn known() -> Credentials {
    Credentials::new("aladdin", "sesame").expect("credentials")
}

/// What becomes of a request that is answered so.
async fn replied(reply: &[u8]) -> ProxyError {
    let script: [(usize, &[u8]); 2] = [(3, &[5, 0]), (12, reply)];
    let (outcome, ..) = dialogue(&name(), None, &script).await;
    outcome.expect_err("is no connection")
}

#[tokio::test]
async fn a_name_and_addresses_are_asked_for_and_what_stands_behind_the_reply_stays() {
    let cases: [(Target, &[u8]); 3] = [
        (name(), b"\x05\x01\x00\x03\x05relay\x01\xbb"),
        (
            Target::new("127.0.0.1", 443),
            b"\x05\x01\x00\x01\x7f\x00\x00\x01\x01\xbb",
        ),
        (
            Target::new("::1", 443),
            b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
        ),
    ];
    let reply = [GRANTED, b"the relay's"].concat();
    for (target, request) in cases {
        let script: [(usize, &[u8]); 2] = [(3, &[5, 0]), (request.len(), &reply)];
        let (outcome, heard, left) = dialogue(&target, None, &script).await;
        outcome.expect("a connection");
        assert_eq!(heard, [b"\x05\x01\x00", request].concat(), "{target}");
        assert_eq!(left, b"the relay's");
    }
}

#[tokio::test]
async fn a_reply_may_name_any_kind_of_address() {
    let replies: [&[u8]; 2] = [
        b"\x05\x00\x00\x03\x04name\x00\x50",
        b"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50",
    ];
    for reply in replies {
        let script: [(usize, &[u8]); 2] = [(3, &[5, 0]), (12, reply)];
        let (outcome, _, left) = dialogue(&name(), None, &script).await;
        outcome.expect("a connection");
        assert_eq!(left, b"");
    }
}

#[tokio::test]
async fn who_has_a_password_offers_to_be_known_or_not() {
    let login = b"\x01\x07aladdin\x06sesame";
    let script: [(usize, &[u8]); 3] = [(4, &[5, 2]), (login.len(), &[1, 0]), (12, GRANTED)];
    let (outcome, heard, _) = dialogue(&name(), Some(&known()), &script).await;
    outcome.expect("a connection");
    assert_eq!(heard[..4], [5, 2, 0, 2]);
    assert_eq!(heard[4..4 + login.len()], login[..]);

    let script: [(usize, &[u8]); 2] = [(4, &[5, 0]), (12, GRANTED)];
    let (outcome, ..) = dialogue(&name(), Some(&known()), &script).await;
    outcome.expect("a proxy that lets everybody in");

    let script: [(usize, &[u8]); 2] = [(4, &[5, 2]), (login.len(), &[1, 1])];
    let (outcome, ..) = dialogue(&name(), Some(&known()), &script).await;
    let error = outcome.expect_err("is wrong");
    assert!(matches!(error, ProxyError::CredentialsRefused), "{error}");
    assert!(!format!("{error} {error:?}").contains("sesame"), "{error}");
}

#[tokio::test]
async fn a_proxy_that_wants_to_know_who_asks_is_told_as_such() {
    for method in [0xff, 2] {
        let (outcome, ..) = dialogue(&name(), None, &[(3, &[5, method])]).await;
        let error = outcome.expect_err("is no connection");
        assert!(matches!(error, ProxyError::CredentialsWanted), "{error}");
    }
    let (outcome, ..) = dialogue(&name(), Some(&known()), &[(4, &[5, 0xff])]).await;
    let error = outcome.expect_err("is no connection");
    assert!(matches!(error, ProxyError::Authentication(_)), "{error}");
}

#[tokio::test]
async fn every_reply_code_is_told_in_words() {
    let mut texts = vec![];
    for code in 1..=8 {
        let error = replied(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        assert!(
            matches!(error, ProxyError::RefusedByCode(_)),
            "{code}: {error}"
        );
        texts.push(error.to_string());
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 8, "{texts:?}");
}

#[tokio::test]
async fn what_is_no_socks_is_told_as_such() {
    for reply in [
        &b"HTTP/1.1 400 Bad\r\n"[..],
        &[5, 99, 0, 1],
        &[5, 0, 1, 1],
        &[5, 0, 0, 9],
    ] {
        let error = replied(reply).await;
        assert!(
            matches!(error, ProxyError::NotUnderstood(_)),
            "{reply:?}: {error}"
        );
    }
    for answer in [&b"HTTP/1.1 400 Bad\r\n"[..], &[4, 0], &[5, 7]] {
        let (outcome, ..) = dialogue(&name(), None, &[(3, answer)]).await;
        let error = outcome.expect_err("is no connection");
        assert!(
            matches!(error, ProxyError::NotUnderstood(_)),
            "{answer:?}: {error}"
        );
    }
    for cut in 0..GRANTED.len() {
        let error = replied(&GRANTED[..cut]).await;
        assert!(matches!(error, ProxyError::Closed), "cut at {cut}: {error}");
    }
}
