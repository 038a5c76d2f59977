//! Who came, and to which address: what the socket says, or what a trusted proxy says.

use std::net::SocketAddr;

use first_flight::proxy_header::{self, Addresses, HeaderError};
use tokio::net::TcpStream;
use tunnel_common::stream::header::canonical;

use crate::proxies::TrustedProxy;

/// The addresses of a visit on the connection of `peer`, whose address must be canonical.
///
/// From a trusted proxy the connection must begin with a header, which is consumed; from everybody
/// else nothing is read. The caller sets the deadline; a cancelled call has consumed an unknown part.
pub(crate) async fn addresses(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trusted: &[TrustedProxy],
) -> Result<Addresses, HeaderError> {
    let own = Addresses {
        visitor: peer,
        // A socket that no longer knows its own address breaks soon; till then any will do.
        public: stream.local_addr().map_or(peer, canonical),
    };
    if !trusted.iter().any(|proxy| proxy.contains(peer.ip())) {
        return Ok(own);
    }
    Ok(proxy_header::read(stream).await?.unwrap_or(own))
}
