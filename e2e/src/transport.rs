//! What carries the tunnel: a story that is true of both is told over both.
//!
//! ```text
//! #[rstest]
//! #[tokio::test]
//! async fn a_visitor_is_served(#[values(Over::Quic, Over::H2)] over: Over) {
//!     let mut stage = stage(over).await;
//! ```

use tunnel_client::config::{Config, Transport};

/// The transport of an agent's tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// QUIC, and nothing else; the binary prefers it where UDP passes.
    Quic,
    /// HTTP/2, and nothing else: such an agent sends no UDP.
    H2,
}

impl Over {
    /// Makes an agent of this process use it.
    pub fn set(self, config: &mut Config) {
        config.transport = match self {
            Self::Quic => Transport::OnlyQuic,
            Self::H2 => Transport::OnlyH2,
        };
    }

    /// Flags that make the binary `client` use it.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Quic => &[],
            Self::H2 => &["--force-h2"],
        }
    }

    /// These flags of `client`, and those that make it use this.
    pub fn with<'a>(self, flags: &[&'a str]) -> Vec<&'a str> {
        [flags, self.flags()].concat()
    }

    /// What the log of a `client` says of its tunnel.
    pub fn logged(self) -> &'static str {
        match self {
            Self::Quic => r#"transport="QUIC""#,
            Self::H2 => r#"transport="HTTP/2""#,
        }
    }
}
