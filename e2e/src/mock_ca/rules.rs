//! How the authority behaves.

use std::time::{Duration, SystemTime};

/// What CAA records call it (RFC 8659, 4.2).
pub const CAA_IDENTITY: &str = "mock.example";

/// What a story may change while the authority runs. The default lets everybody have everything.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long certificates are valid, from the moment when they are issued.
    pub lifetime: Duration,
    /// The profiles that orders may name; without any the directory does not speak of them.
    pub profiles: Vec<&'static str>,
    /// The renewal information; `None`: the directory has none.
    pub ari: Option<Ari>,
    /// Answers every new order so.
    pub refuse_orders: Option<RateLimit>,
    /// Every challenge is lost, and its order with it.
    pub fail_validation: bool,
    /// Percent of the good nonces that it refuses.
    pub bad_nonces: u8,
    /// Whose answers are lost on the way.
    pub garbled: Option<Garbled>,
}

/// A proxy that does what it is asked, and answers with a page of its own.
#[derive(Clone, Copy, Debug)]
pub struct Garbled {
    /// The first step of the paths: `certificate`, `directory`.
    pub resource: &'static str,
    /// The status.
    pub status: u16,
    /// When to try again: whole seconds.
    pub retry_after: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(90 * 24 * 3600),
            profiles: vec!["classic", "shortlived", "tlsserver"],
            ari: None,
            refuse_orders: None,
            fail_validation: false,
            bad_nonces: 0,
            garbled: None,
        }
    }
}

/// When certificates should be renewed: the same for all (RFC 9773, 4.2).
#[derive(Clone, Copy, Debug)]
pub struct Ari {
    /// The begin of the window.
    pub start: SystemTime,
    /// Its end.
    pub end: SystemTime,
    /// When to ask again: whole seconds.
    pub retry_after: Duration,
}

/// A refusal for now (RFC 8555, 6.6).
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// When to try again.
    pub retry_after: RetryAfter,
    /// For a reader.
    pub detail: String,
}

/// The two forms of the header (RFC 9110, 10.2.3).
#[derive(Clone, Copy, Debug)]
pub enum RetryAfter {
    /// Whole seconds.
    In(Duration),
    /// A date.
    At(SystemTime),
}

impl RetryAfter {
    pub(super) fn header(self) -> String {
        match self {
            Self::In(time) => time.as_secs().to_string(),
            Self::At(date) => httpdate::fmt_http_date(date),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_both_forms() {
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(RetryAfter::In(day).header(), "86400");
        let date = RetryAfter::At(SystemTime::UNIX_EPOCH + day);
        assert_eq!(date.header(), "Fri, 02 Jan 1970 00:00:00 GMT");
    }
}
