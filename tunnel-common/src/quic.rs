//! What both ends of a QUIC tunnel set alike: sockets, windows, clocks, congestion control.
//!
//! Who may open how many streams differs by end, and is set there.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    ConnectionError, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use crate::bbr::BbrConfig;
use crate::escape::Escaped;
use crate::proof::{EXPORTER_LABEL, Exporter};
use crate::wire::code::Code;

/// What a peer may send ahead on one stream, at the most: 100 Mbit/s at 200 ms, while what was lost is sent again,
/// twice if need be. Not more: a stream with over 1024 gaps ends its connection, and with 8 MiB it takes a path that
/// loses a fifth of its packets at that speed.
pub const MAX_STREAM_WINDOW: u64 = 8 * 1024 * 1024;
/// And at the least, however little memory there is: 100 Mbit/s at 200 ms, while nothing is lost.
pub const LEAST_STREAM_WINDOW: u64 = 4 * 1024 * 1024;
/// What a peer may send ahead on all streams together, at the most.
pub const CONNECTION_WINDOW: u64 = 512 * 1024 * 1024;
/// So many streams fill a connection's window: with as many visitors who take less than comes for them, nobody's
/// bytes come faster than theirs.
const FULL_STREAMS: u64 = 64;
/// What we keep of our own until the peer has acknowledged it: four of the largest streams. A question waits to be
/// written while downloads fill it.
const SEND_WINDOW: u64 = 32 * 1024 * 1024;
/// The first packets' size, which every path must carry (RFC 9000, 14.1).
const INITIAL_MTU: u16 = 1200;
/// The largest packet to look for, jumbo frames included: quinn hands the kernel ten in one call, which takes
/// no more than a datagram's 65,507 bytes.
pub const MAX_PACKET: u16 = 6550;
/// What IP and UDP put before a packet, by the kind of address.
const HEADERS_V4: u32 = 20 + 8;
const HEADERS_V6: u32 = 40 + 8;
const ETHERNET_MTU: u32 = 1500;
/// After a black hole the larger packets are tried again.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(60);
/// What to ask of the kernel for each direction of a socket: 7.5 MB, as other QUIC stacks do.
const SOCKET_BUFFER_BYTES: usize = 7_500_000;

/// The congestion control of a QUIC tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Measures bandwidth and delay; a lost packet alone does not slow it down.
    #[default]
    Bbr,
    /// The classic: halves at a loss, for all visits at once.
    Cubic,
}

/// Why a text names no [`Congestion`].
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("congestion control is 'bbr' or 'cubic'")]
pub struct BadCongestion;

impl FromStr for Congestion {
    type Err = BadCongestion;

    fn from_str(text: &str) -> Result<Self, BadCongestion> {
        match text {
            "bbr" => Ok(Self::Bbr),
            "cubic" => Ok(Self::Cubic),
            _ => Err(BadCongestion),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bbr => "bbr",
            Self::Cubic => "cubic",
        })
    }
}

/// The clocks of a QUIC tunnel.
#[derive(Clone, Copy, Debug)]
pub struct QuicTimeouts {
    /// A peer that is silent for so long is dead: 6 s. The lower of both ends' counts.
    pub idle: Duration,
    /// How long the handshake may take: 5 s.
    pub handshake: Duration,
    /// How often a silent connection is kept alive: 2 s.
    pub keep_alive: Duration,
}

impl Default for QuicTimeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(6),
            handshake: Duration::from_secs(5),
            keep_alive: Duration::from_secs(2),
        }
    }
}

/// What a peer may send ahead on one stream, in bytes, where `connection` is what it may on all together.
pub fn stream_window(connection: u64) -> u64 {
    (connection / FULL_STREAMS).clamp(LEAST_STREAM_WINDOW, MAX_STREAM_WINDOW)
}

/// The transport settings that both ends share. `window` is the connection's receive window, and no packet
/// larger than `largest_packet` bytes is tried.
pub fn transport(
    congestion: Congestion,
    timeouts: &QuicTimeouts,
    window: u64,
    largest_packet: u16,
) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(largest_packet)
        .black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(var_int(stream_window(window)))
        .receive_window(var_int(window))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .initial_mtu(INITIAL_MTU)
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(IdleTimeout::try_from(timeouts.idle).ok());
    match congestion {
        Congestion::Bbr => {
            transport.congestion_controller_factory(Arc::new(BbrConfig));
        }
        Congestion::Cubic => {
            transport.congestion_controller_factory(Arc::new(CubicConfig::default()));
        }
    }
    transport
}

/// The largest packet, in bytes, that the route to `address` takes as far as the kernel knows: at least
/// what every path carries, at most [`MAX_PACKET`]. Farther on the path may be narrower.
///
/// Sends nothing. Where the kernel does not say, what Ethernet carries.
pub fn largest_packet(address: SocketAddr) -> u16 {
    let headers = match address {
        SocketAddr::V4(_) => HEADERS_V4,
        SocketAddr::V6(_) => HEADERS_V6,
    };
    let mtu = route_mtu(address).unwrap_or(ETHERNET_MTU);
    let packet = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    packet.clamp(INITIAL_MTU, MAX_PACKET)
}

/// Lets peers of this endpoint send packets of up to `largest` bytes; they do not try larger ones.
pub fn receive_packets(endpoint: &mut EndpointConfig, largest: u16) {
    // Fails only where no such packet can be.
    let _ = endpoint.max_udp_payload_size(largest.max(INITIAL_MTU));
}

#[cfg(target_os = "linux")]
fn route_mtu(address: SocketAddr) -> io::Result<u32> {
    let socket = connected(address)?;
    let mtu = match address {
        SocketAddr::V4(_) => sockopt::ip_mtu(&socket),
        SocketAddr::V6(_) => sockopt::ipv6_mtu(&socket),
    };
    Ok(mtu?)
}

#[cfg(not(target_os = "linux"))]
fn route_mtu(_: SocketAddr) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Why a connection ended, on one line. What the peer gave as its reason is escaped.
pub fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            let code = Code::from(close.error_code).to_string();
            match reason.as_ref() {
                "" => format!("closed by the peer: {code}"),
                reason if reason == code => format!("closed by the peer: {code}"),
                reason => format!("closed by the peer: {code}: {}", Escaped(reason)),
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            format!(
                "closed by the peer's transport: {}: {}",
                close.error_code,
                Escaped(&reason)
            )
        }
        ConnectionError::TimedOut => "the peer has fallen silent".to_owned(),
        ConnectionError::Reset => {
            "the peer was started anew, and has lost the connection".to_owned()
        }
        ours => ours.to_string(),
    }
}

/// What only the two ends of this connection know. `None` before the handshake is complete.
pub fn exporter(connection: &quinn::Connection) -> Option<Exporter> {
    let mut exporter = Exporter::default();
    let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]);
    exported.is_ok().then_some(exporter)
}

/// A QUIC integer; what does not fit becomes the largest.
pub fn var_int(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// Where a socket is to be bound that leads to `address`, from whatever address and port of ours.
pub fn any_towards(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// A socket by which the kernel tells of the route to `address`. Sends nothing.
pub fn connected(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any_towards(address))?;
    socket.connect(address)?;
    Ok(socket)
}

/// Binds a UDP socket with large buffers. An unspecified IPv6 address takes IPv4 in as well.
///
/// Small buffers cost speed, not correctness: where the kernel refuses, a warning says what would
/// mend it.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    enlarge(&socket);
    Ok(socket.into())
}

/// Whether the process has said that its buffers are small: once is enough.
static WARNED: AtomicBool = AtomicBool::new(false);

/// Linux reports twice what it was asked for: half is for its own bookkeeping.
const KERNEL_SHARE: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

fn enlarge(socket: &Socket) {
    // The forced form needs a capability and ignores the system's limit; the plain one is cut.
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    }
    let sizes = [socket.recv_buffer_size(), socket.send_buffer_size()];
    let got = sizes.into_iter().flatten().min().unwrap_or(0) / KERNEL_SHARE;
    if got < SOCKET_BUFFER_BYTES && !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            "the system allows UDP buffers of {got} bytes only; for full speed: \
             sysctl -w net.core.rmem_max={SOCKET_BUFFER_BYTES} net.core.wmem_max={SOCKET_BUFFER_BYTES}"
        );
    }
}

#[cfg(test)]
mod tests {
    use quinn::ApplicationClose;

    use super::*;

    #[test]
    fn congestion_control_has_two_names() {
        for congestion in [Congestion::Bbr, Congestion::Cubic] {
            assert_eq!(congestion.to_string().parse(), Ok(congestion));
        }
        assert_eq!("reno".parse::<Congestion>(), Err(BadCongestion));
    }

    #[test]
    fn what_a_peer_gives_as_its_reason_stays_on_one_line() {
        let closed = |code: u32, reason: &'static [u8]| {
            let close = ApplicationClose {
                error_code: code.into(),
                reason: reason.into(),
            };
            describe(&ConnectionError::ApplicationClosed(close))
        };
        assert_eq!(closed(8, b""), "closed by the peer: the peer is stopping");
        assert_eq!(
            closed(8, b"the peer is stopping"),
            "closed by the peer: the peer is stopping"
        );
        assert_eq!(
            closed(77, b"a\r\n\x1b[31mb"),
            "closed by the peer: code 77: a\\r\\n\\u{1b}[31mb"
        );
    }

    #[test]
    fn packets_are_as_large_as_the_route_takes_them() {
        for loopback in ["127.0.0.1:1", "[::1]:1"] {
            let address = loopback.parse().expect("an address");
            assert_eq!(largest_packet(address), MAX_PACKET);
        }
    }

    #[test]
    fn a_socket_binds_to_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let address: SocketAddr = address.parse().expect("an address");
            let socket = bind_udp(address).expect("binds");
            assert_ne!(socket.local_addr().expect("bound").port(), 0);
        }
    }
}
