//! Where visitors' TLS ends.

use std::fmt;
use std::str::FromStr;

/// Where visitors' TLS ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// At the agent, with a certificate for the endpoint's own key.
    #[default]
    Terminate,
    /// At the local service: it gets the visitor's bytes as they are, and shows him a certificate
    /// of its own.
    Passthrough,
}

/// Why a text names no [`TlsMode`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("visitors' TLS is 'terminate' or 'passthrough'")]
pub struct BadTlsMode;

impl FromStr for TlsMode {
    type Err = BadTlsMode;

    fn from_str(text: &str) -> Result<Self, BadTlsMode> {
        match text {
            "terminate" => Ok(Self::Terminate),
            "passthrough" => Ok(Self::Passthrough),
            _ => Err(BadTlsMode),
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "terminate",
            Self::Passthrough => "passthrough",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_named_or_refused() {
        for mode in [TlsMode::Terminate, TlsMode::Passthrough] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in ["", "pass", "Terminate"] {
            assert_eq!(text.parse::<TlsMode>(), Err(BadTlsMode));
        }
    }
}
