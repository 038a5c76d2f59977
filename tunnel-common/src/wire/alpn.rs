//! The protocol names of tunnels, and that of a certificate authority's question.

/// ALPN of a QUIC tunnel. The number is the version of the framing: it changes only when an old
/// peer could not parse what a new one sends.
pub const QUIC: &[u8] = b"qtun/1";
/// ALPN of an HTTP/2 tunnel. Never a bare `h2`: an agent is no web client, nor the relay a web server.
pub const H2: &[u8] = b"qtun-h2/1";
/// ALPN of a certificate authority that validates a name (TLS-ALPN-01, RFC 8737, 6.2). It offers no other.
pub const ACME_TLS: &[u8] = b"acme-tls/1";
