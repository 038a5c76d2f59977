//! Why there is no certificate, and whose fault that is.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{Error, Problem};

use super::chain::{BadChain, ChainFileError};
use crate::escape::Escaped;
use crate::tls::CertificateError;

/// What an authority says when it was asked too often (RFC 8555, 6.6).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// What it says of a nonce that it does not know any more (RFC 8555, 6.5).
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// What it says of an account that it does not know (RFC 8555, 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate. What the authority says is on one line, and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The authority is not reached, or answers with something else than ACME. It has seen no order.
    #[error("the certificate authority is not reached: {what}")]
    Unreachable {
        /// What came instead.
        what: String,
        /// When it lets us come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The same in the middle of an order.
    #[error("the order was broken off: {what}")]
    Interrupted {
        /// What came instead.
        what: String,
        /// When it lets us come again, if it says so.
        retry_after: Option<Duration>,
    },
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
    /// Orders are begun again and again, and none comes to its end.
    #[error("{0} orders for this name were begun within an hour, and none was finished")]
    BrokenOff(u32),
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
    /// A file in whose place a certificate would go holds something else.
    #[error(transparent)]
    Occupied(#[from] ChainFileError),
    /// A certificate of our own could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Failure {
    /// Whether the authority may have counted it: then it is not asked again soon.
    pub fn is_counted(&self) -> bool {
        match self {
            Self::Interrupted { .. }
            | Self::Limited { .. }
            | Self::Validation(_)
            | Self::Refused { .. }
            | Self::BrokenOff(_)
            | Self::NoChallenge
            | Self::Useless(_) => true,
            Self::Unreachable { .. }
            | Self::Doomed(_)
            | Self::UnknownAccount
            | Self::File { .. }
            | Self::Occupied(_)
            | Self::Certificate(_) => false,
        }
    }

    /// When the authority lets us come again, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. }
            | Self::Interrupted { retry_after, .. }
            | Self::Limited { retry_after, .. }
            | Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What `error` means before anything was ordered, where the authority last asked for a pause of
    /// `retry_after`.
    pub(super) fn before_order(error: Error, retry_after: Option<Duration>) -> Self {
        let unreachable = |what| Self::Unreachable { what, retry_after };
        Self::said(error, retry_after).unwrap_or_else(|error| unreachable(shown(error)))
    }

    /// What `error` means from the moment on when an order was sent: the authority may have counted that,
    /// whatever came back.
    pub(super) fn in_order(error: Error, retry_after: Option<Duration>) -> Self {
        let interrupted = |what| Self::Interrupted { what, retry_after };
        Self::said(error, retry_after).unwrap_or_else(|error| interrupted(shown(error)))
    }

    /// What the authority says, if it is that.
    fn said(error: Error, retry_after: Option<Duration>) -> Result<Self, Error> {
        let Error::Api(problem) = error else {
            return Err(error);
        };
        let detail = shown(&problem);
        Ok(match problem.r#type.as_deref() {
            Some(NO_ACCOUNT) => Self::UnknownAccount,
            Some(RATE_LIMITED) => Self::Limited {
                detail,
                retry_after,
            },
            _ => Self::Refused {
                detail,
                retry_after,
            },
        })
    }
}

/// What an authority says, fit for a line of the log.
pub(super) fn shown(said: impl Display) -> String {
    Escaped(&said.to_string()).to_string()
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
        let limited = Failure::before_order(problem(RATE_LIMITED), pause);
        assert!(matches!(limited, Failure::Limited { .. }), "{limited:?}");
        assert_eq!((limited.retry_after(), limited.is_counted()), (pause, true));
        let caa = problem("urn:ietf:params:acme:error:caa");
        let refused = Failure::in_order(caa, None);
        assert!(refused.to_string().contains("so it is"), "{refused}");
        assert!(refused.is_counted());
        let away = Failure::before_order(Error::Str("no nonce"), pause);
        assert_eq!((away.retry_after(), away.is_counted()), (pause, false));
    }

    #[test]
    fn whatever_breaks_an_order_off_is_counted() {
        let lost = Failure::in_order(Error::Str("invalid order state"), None);
        assert!(lost.is_counted(), "{lost:?}");
        assert!(lost.to_string().contains("broken off"), "{lost}");
    }

    #[test]
    fn a_bad_nonce_and_an_unknown_account_are_known_by_their_names() {
        assert!(is_bad_nonce(&problem(BAD_NONCE)) && !is_bad_nonce(&problem(NO_ACCOUNT)));
        let lost = Failure::in_order(problem(NO_ACCOUNT), None);
        assert!(matches!(lost, Failure::UnknownAccount) && !lost.is_counted());
    }

    #[test]
    fn what_an_authority_says_is_one_line_and_cut() {
        let said = shown("a\nb".repeat(1000));
        assert!(said.len() < 300 && !said.contains('\n'), "{said}");
    }
}
