//! Why there is no certificate, and whose fault that is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{Error, Problem};

use super::chain::BadChain;
use crate::tls::CertificateError;

/// What an authority says when it was asked too often (RFC 8555, 6.6).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// What it says of a nonce that it does not know any more (RFC 8555, 6.5).
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// What it says of an account that it does not know (RFC 8555, 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The authority, or whoever it would ask, is not reached. It has seen no order.
    #[error("{0}")]
    Unreachable(String),
    /// Its question would not get to us, so it was not asked to put it.
    #[error("the certificate authority's question would not get here: {0}")]
    Doomed(String),
    /// It has a limit, and we are beyond it.
    #[error("the limit of the certificate authority: {detail}")]
    Limited {
        /// What it says.
        detail: String,
        /// When it lets us come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// It has asked, and is not content with the answer.
    #[error("the certificate authority could not validate the name: {0}")]
    Validation(String),
    /// It says no.
    #[error("the certificate authority refuses: {detail}")]
    Refused {
        /// What it says.
        detail: String,
        /// When it lets us come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// It does not know the account that it has told us.
    #[error("the certificate authority does not know our account any more; it is made anew")]
    UnknownAccount,
    /// It offers nothing that we can do.
    #[error("the certificate authority does not offer TLS-ALPN-01 for this name")]
    NoChallenge,
    /// What it issued is of no use.
    #[error("the certificate authority issued what can not be used: {0}")]
    Useless(#[from] BadChain),
    /// A file of ours can not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate of our own could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Failure {
    /// Whether the authority may have counted it: then it is not asked again soon.
    pub fn is_counted(&self) -> bool {
        let uncounted = matches!(
            self,
            Self::Unreachable(_) | Self::Doomed(_) | Self::UnknownAccount
        );
        !uncounted
    }

    /// When the authority lets us come again, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { retry_after, .. } | Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What `error` means, where the authority last asked for a pause of `retry_after`.
    pub(super) fn of(error: Error, retry_after: Option<Duration>) -> Self {
        match error {
            Error::Api(problem) => {
                let detail = problem.to_string();
                match problem.r#type.as_deref() {
                    Some(NO_ACCOUNT) => Self::UnknownAccount,
                    Some(RATE_LIMITED) => Self::Limited {
                        detail,
                        retry_after,
                    },
                    _ => Self::Refused {
                        detail,
                        retry_after,
                    },
                }
            }
            Error::Timeout(_) => Self::Refused {
                detail: "it did not decide in time".to_owned(),
                retry_after,
            },
            Error::Unsupported(what) => Self::Refused {
                detail: format!("it does not support {what}"),
                retry_after,
            },
            // An answer that is no ACME: a proxy's page, or a server that is overloaded.
            other => {
                Self::Unreachable(format!("the certificate authority is not reached: {other}"))
            }
        }
    }
}

/// Whether the same request, signed anew, would do.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(Problem { r#type: Some(r#type), .. }) if r#type == BAD_NONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(r#type: &str) -> Error {
        let json = format!(r#"{{"type":"{type}","detail":"so it is","status":429}}"#);
        Error::Api(serde_json::from_str(&json).expect("a problem"))
    }

    #[test]
    fn a_limit_is_told_from_a_refusal_and_both_from_an_authority_that_is_not_there() {
        let pause = Some(Duration::from_secs(7));
        let limited = Failure::of(problem(RATE_LIMITED), pause);
        assert!(matches!(limited, Failure::Limited { .. }), "{limited:?}");
        assert_eq!((limited.retry_after(), limited.is_counted()), (pause, true));
        let refused = Failure::of(problem("urn:ietf:params:acme:error:caa"), None);
        assert!(refused.to_string().contains("so it is"), "{refused}");
        assert!(refused.is_counted());
        let away = Failure::of(Error::Str("no nonce"), None);
        assert!(!away.is_counted(), "{away:?}");
    }

    #[test]
    fn a_bad_nonce_and_an_unknown_account_are_known_by_their_names() {
        assert!(is_bad_nonce(&problem(BAD_NONCE)) && !is_bad_nonce(&problem(NO_ACCOUNT)));
        let lost = Failure::of(problem(NO_ACCOUNT), None);
        assert!(matches!(lost, Failure::UnknownAccount) && !lost.is_counted());
    }
}
