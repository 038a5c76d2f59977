//! What is measured: one way for a visitor to reach nginx.

use e2e::transport::Over;

/// One way. Each is a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Row {
    /// nginx itself.
    Direct,
    /// HAProxy in TCP mode, which reads the server name: one blind hop, and no tunnel.
    Haproxy,
    /// Ours over QUIC, with BBR, which it has by default.
    Quic,
    /// Ours over QUIC with CUBIC.
    QuicCubic,
    /// Ours over HTTP/2, with a pool of four.
    H2,
    /// rathole, its tunnel in TLS.
    Rathole,
    /// bore, its tunnel in the clear.
    Bore,
}

impl Row {
    pub(crate) const ALL: [Self; 7] = [
        Self::Direct,
        Self::Haproxy,
        Self::Quic,
        Self::QuicCubic,
        Self::H2,
        Self::Rathole,
        Self::Bore,
    ];

    /// What a tunnel of ours is made of.
    pub(crate) fn over(self) -> Over {
        match self {
            Self::H2 => Over::H2,
            _ => Over::Quic,
        }
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "nginx, direct",
            Self::Haproxy => "HAProxy, one blind hop",
            Self::Quic => "**ours, QUIC**",
            Self::QuicCubic => "ours, QUIC with CUBIC",
            Self::H2 => "**ours, HTTP/2**",
            Self::Rathole => "rathole, TLS",
            Self::Bore => "bore, not encrypted",
        }
    }

    /// What a chart calls it.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Direct => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Quic => "QUIC",
            Self::QuicCubic => "QUIC, CUBIC",
            Self::H2 => "HTTP/2",
            Self::Rathole => "rathole",
            Self::Bore => "bore",
        }
    }

    /// Its name in files.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Quic => "quic",
            Self::QuicCubic => "quic-cubic",
            Self::H2 => "h2",
            Self::Rathole => "rathole",
            Self::Bore => "bore",
        }
    }
}
