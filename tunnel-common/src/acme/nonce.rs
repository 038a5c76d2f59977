//! Requests that are signed anew when the authority does not know their nonce any more (RFC 8555, 6.5). Three
//! times in each instant-acme does that by itself; some authorities, and pebble on purpose, want more.

/// How often a request is made at the most.
pub(super) const ATTEMPTS: u32 = 10;

/// Evaluates a request, a `Result` with instant-acme's error, until its nonce is known. A macro, since an async
/// closure that borrows is not yet known to be `Send`.
macro_rules! with_nonce {
    ($request:expr) => {{
        let mut attempts = $crate::acme::nonce::ATTEMPTS;
        loop {
            attempts -= 1;
            match $request {
                Err(error) if attempts > 0 && $crate::acme::failure::is_bad_nonce(&error) => {
                    tracing::debug!("the certificate authority does not know a nonce any more");
                }
                done => break done,
            }
        }
    }};
}

pub(super) use with_nonce;

#[cfg(test)]
mod tests {
    use instant_acme::Error;

    use super::*;

    fn bad_nonce() -> Error {
        let json = r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#;
        Error::Api(serde_json::from_str(json).expect("a problem"))
    }

    #[test]
    fn a_request_is_made_again_while_its_nonce_is_not_known_and_not_for_ever() {
        let mut made = 0;
        let outcome = with_nonce!({
            made += 1;
            if made < 5 { Err(bad_nonce()) } else { Ok(made) }
        });
        assert_eq!(outcome.expect("is known"), 5);
        let mut made = 0;
        let outcome: Result<(), _> = with_nonce!({
            made += 1;
            Err(bad_nonce())
        });
        assert!(outcome.is_err());
        assert_eq!(made, ATTEMPTS);
    }
}
