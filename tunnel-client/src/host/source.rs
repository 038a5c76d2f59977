//! The addresses of this host, as far as the system tells without being asked for all of them.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use tunnel_common::quic;

/// From which address this host would send to `remote` now; `None` without a route. Sends nothing.
pub(crate) fn source(remote: SocketAddr) -> Option<IpAddr> {
    let socket = quic::connected(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// From which addresses this host would send to each of `remotes` now.
pub(crate) fn sources(remotes: &[SocketAddr]) -> Vec<Option<IpAddr>> {
    remotes.iter().copied().map(source).collect()
}

/// Whether this host still has the address of `local`. Where the system does not tell, it has.
pub(crate) fn has(mut local: SocketAddr) -> bool {
    local.set_port(0);
    match UdpSocket::bind(local) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn this_host_sends_to_itself_from_its_own_address() {
        let itself = address("127.0.0.1:4433");
        assert_eq!(sources(&[itself]), [Some(itself.ip())]);
    }

    #[test]
    fn it_has_its_own_address_and_nobody_elses() {
        assert!(has(address("127.0.0.1:4433")));
        // For documentation only (RFC 5737).
        assert!(!has(address("192.0.2.1:4433")));
    }
}
