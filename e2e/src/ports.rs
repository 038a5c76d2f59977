//! Ports whose number a story must know before anybody binds them.
//!
//! A port is held at 127.0.0.1, so the system gives it to nobody, and is free at [`ADDRESS`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// Where reserved ports are free.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A port that is free at [`ADDRESS`] as long as this lives.
#[derive(Debug)]
pub struct Reserved<S> {
    /// The number.
    pub port: u16,
    _held: S,
}

impl<S> Reserved<S> {
    /// Where to bind it.
    pub fn address(&self) -> SocketAddr {
        (ADDRESS, self.port).into()
    }
}

/// Reserves a TCP port.
pub fn tcp() -> Reserved<TcpListener> {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = held.local_addr().expect("bound").port();
    Reserved { port, _held: held }
}

/// Reserves a UDP port.
pub fn udp() -> Reserved<UdpSocket> {
    let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let port = held.local_addr().expect("bound").port();
    Reserved { port, _held: held }
}
