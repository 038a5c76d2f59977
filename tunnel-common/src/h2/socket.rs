//! The options of a TCP socket that carries a tunnel.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::debug;

use crate::quic::Congestion;

/// What may lie in the kernel unsent, and a segment more: a PING waits behind no more than that, where
/// Linux by default takes megabytes. It holds for writes themselves, not only for when a socket counts
/// as writable. What is under way and not yet acknowledged does not count, so a long path is filled
/// all the same.
const NOT_SENT_BYTES: u32 = 128 * 1024;
/// What was sent is acknowledged within this, or the kernel ends the connection. Linux counts a peer
/// that acknowledges but does not read as one who is gone: on a tunnel that is right, since its reader
/// waits for no visitor. It is longer than an unanswered PING is waited for, and so speaks first only
/// where nobody reads the clock.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Sets what both ends of a tunnel over TCP set alike: no delay of small writes, little unsent data,
/// a limit to silence, and the congestion control that was chosen.
///
/// What the system refuses or does not know stays at its default: that costs speed, not correctness.
pub fn prepare(tcp: &TcpStream, congestion: Congestion) {
    // Fails only on a socket that is broken, and then so does what follows.
    let _ = tcp.set_nodelay(true);
    tune(&SockRef::from(tcp), congestion);
}

#[cfg(target_os = "linux")]
fn tune(socket: &SockRef<'_>, congestion: Congestion) {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether the process has said that the kernel has no such congestion control: once is enough.
    static SAID: AtomicBool = AtomicBool::new(false);

    let _ = socket.set_tcp_notsent_lowat(NOT_SENT_BYTES);
    let _ = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let refused = socket.set_tcp_congestion(congestion.to_string().as_bytes());
    if let Err(error) = refused
        && !SAID.swap(true, Ordering::Relaxed)
    {
        debug!("the kernel keeps its own congestion control for TCP, not {congestion}: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn tune(_: &SockRef<'_>, congestion: Congestion) {
    debug!("{congestion}, {NOT_SENT_BYTES} and {UNACKNOWLEDGED:?} are for Linux");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io;
    use std::os::fd::AsFd as _;
    use std::task::{Context, Poll, Waker};

    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection, the first one prepared.
    async fn pair(congestion: Congestion) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let near = TcpStream::connect(address).await.expect("connects");
        let (far, _) = listener.accept().await.expect("accepts");
        prepare(&near, congestion);
        (near, far)
    }

    #[tokio::test]
    async fn the_kernel_takes_what_is_asked() {
        for congestion in [Congestion::Bbr, Congestion::Cubic] {
            let (near, _far) = pair(congestion).await;
            let socket = SockRef::from(&near);
            assert!(near.nodelay().expect("is open"));
            let unsent = socket.tcp_notsent_lowat().expect("is open");
            assert_eq!(unsent, NOT_SENT_BYTES);
            let silence = socket.tcp_user_timeout().expect("is open");
            assert_eq!(silence, Some(UNACKNOWLEDGED));
            // A kernel without BBR keeps what it has.
            let now = socket.tcp_congestion().expect("is open");
            let known =
                std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
            let name = congestion.to_string();
            if known.is_ok_and(|known| known.split_whitespace().any(|one| one == name)) {
                let now = now.split(|byte| *byte == 0).next();
                assert_eq!(now, Some(name.as_bytes()));
            }
        }
    }

    /// Writes until the kernel takes no more; how much it took.
    fn fill(tcp: &TcpStream) -> usize {
        let piece = vec![7; 1024 * 1024];
        let mut taken = 0;
        loop {
            match tcp.try_write(&piece) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = tcp.poll_write_ready(&mut Context::from_waker(Waker::noop()));
                    if matches!(writable, Poll::Pending) {
                        return taken;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What lies unsent when the receiver takes next to nothing.
    fn unsent(near: &TcpStream, far: &TcpStream) -> usize {
        let taken = fill(near);
        let arrived = rustix::io::ioctl_fionread(far.as_fd()).expect("is open");
        taken - usize::try_from(arrived).expect("fits")
    }

    #[tokio::test]
    async fn writes_of_a_megabyte_leave_little_unsent_in_the_kernel() {
        /// What the kernel gathers in one segment, of which it does not take a part.
        const SEGMENT: usize = 64 * 1024;
        let (near, far) = pair(Congestion::Cubic).await;
        let unsent_there = unsent(&near, &far);
        println!("{unsent_there} bytes unsent");
        assert!(
            unsent_there <= NOT_SENT_BYTES as usize + SEGMENT,
            "{unsent_there}"
        );
        // The other end is a socket as it comes.
        let default = unsent(&far, &near);
        println!("{default} bytes unsent by default");
        assert!(default > 2 * NOT_SENT_BYTES as usize, "{default}");
    }
}
