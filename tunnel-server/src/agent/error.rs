//! Why an agent's session ended, and what the agent is told.

use tunnel_common::escape::Escaped;
use tunnel_common::wire::code::Code;
use tunnel_common::wire::control::ControlError;
use tunnel_common::wire::frame::Refused;

use super::connection::Gone;

/// Why a session ended otherwise than by the peer's closing it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The connection broke, or the agent closed it.
    #[error(transparent)]
    Connection(#[from] Gone),
    /// The control stream can not be used. What the agent sent may be quoted.
    #[error("{}", Escaped(&.0.to_string()))]
    Control(#[from] ControlError),
    /// The agent does not read its control stream.
    #[error("the agent does not listen")]
    Deaf,
    /// The agent did something else than it should.
    #[error("{0}")]
    Protocol(&'static str),
    /// The agent was told why it is not taken in.
    #[error("refused: {}", .0.text)]
    Refused(Refused),
}

impl SessionError {
    /// What the agent is told.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Connection(_) => Code::None,
            Self::Control(error) if !error.is_peers_fault() => Code::None,
            Self::Control(_) | Self::Deaf | Self::Protocol(_) => Code::Protocol,
            Self::Refused(refused) => u64::from(refused.code).into(),
        }
    }
}
