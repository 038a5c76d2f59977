//! What the authority answers: objects, chains and problem documents (RFC 8555, 6.7).

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::rules::RetryAfter;

/// An answer to one request.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    content: Option<(&'static str, String)>,
    location: Option<String>,
    retry_after: Option<RetryAfter>,
}

/// An object.
pub(super) fn object(value: &Value) -> Answer {
    Answer::with("application/json", value.to_string())
}

/// A chain of certificates in PEM.
pub(super) fn chain(pem: String) -> Answer {
    Answer::with("application/pem-certificate-chain", pem)
}

/// Headers alone.
pub(super) fn nothing() -> Answer {
    Answer {
        status: StatusCode::OK,
        content: None,
        location: None,
        retry_after: None,
    }
}

impl Answer {
    fn with(kind: &'static str, text: String) -> Self {
        Self {
            content: Some((kind, text)),
            ..nothing()
        }
    }

    /// Names the URL of what it shows.
    pub(super) fn of(mut self, url: String) -> Self {
        self.location = Some(url);
        self
    }

    /// It is new.
    pub(super) fn created(mut self) -> Self {
        self.status = StatusCode::CREATED;
        self
    }

    /// Says when to ask again.
    pub(super) fn retry_after(mut self, when: RetryAfter) -> Self {
        self.retry_after = Some(when);
        self
    }

    /// The HTTP of it, with a nonce for the next request.
    pub(super) fn into_response(self, nonce: &str) -> Response<Full<Bytes>> {
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CACHE_CONTROL, "no-store")
            .header("replay-nonce", nonce);
        if let Some(url) = self.location {
            response = response.header(header::LOCATION, url);
        }
        if let Some(when) = self.retry_after {
            response = response.header(header::RETRY_AFTER, when.header());
        }
        let (kind, text) = self.content.unzip();
        if let Some(kind) = kind {
            response = response.header(header::CONTENT_TYPE, kind);
        }
        let body = Full::from(text.unwrap_or_default());
        response.body(body).expect("headers of ours")
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    retry_after: Option<RetryAfter>,
}

/// A refusal with one of RFC 8555's error types.
pub(super) fn problem(kind: &'static str, detail: impl Into<String>) -> Problem {
    let status = match kind {
        "unauthorized" | "orderNotReady" => StatusCode::FORBIDDEN,
        "rateLimited" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem {
        status,
        kind,
        detail: detail.into(),
        retry_after: None,
    }
}

/// There is nothing at this path.
pub(super) fn not_found(path: &str) -> Problem {
    Problem {
        status: StatusCode::NOT_FOUND,
        ..problem("malformed", format!("there is no {path}"))
    }
}

impl Problem {
    /// Says when to try again.
    pub(super) fn retry_after(mut self, when: RetryAfter) -> Self {
        self.retry_after = Some(when);
        self
    }

    /// The document.
    pub(super) fn document(&self) -> Value {
        json!({
            "type": format!("urn:ietf:params:acme:error:{}", self.kind),
            "detail": self.detail,
            "status": self.status.as_u16(),
        })
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let document = problem.document().to_string();
        Self {
            status: problem.status,
            retry_after: problem.retry_after,
            ..Self::with("application/problem+json", document)
        }
    }
}
