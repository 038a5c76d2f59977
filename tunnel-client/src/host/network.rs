//! Whether the networks of this host have changed: links, addresses, routes.
//!
//! On Linux the kernel says so. What it says is not read: whoever is told looks at what matters to him.
//! Where it can not be asked, the default routes are looked at from time to time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

#[cfg(any(target_os = "android", target_os = "linux"))]
use self::kernel::Kernel;
use super::source::sources;

/// One change is many messages: it is over when none has come for so long …
const QUIET: Duration = Duration::from_millis(250);
/// … and is told so late at most.
const AT_MOST: Duration = Duration::from_secs(1);
/// How often to look where nobody tells.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Addresses that nobody has (RFC 5737, RFC 3849): the way there is the default route.
pub(super) const ANYWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        9,
    ),
];

/// Tells each change. Dropping it ends that.
#[derive(Debug)]
pub(super) struct Changes {
    /// Who tells, if somebody does.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    kernel: Option<Kernel>,
    /// What was seen at the last look otherwise.
    seen: Vec<Option<IpAddr>>,
}

impl Changes {
    /// Listens from now on.
    pub(super) fn listen() -> Self {
        Self {
            #[cfg(any(target_os = "android", target_os = "linux"))]
            kernel: Kernel::listen()
                .inspect_err(|error| tracing::debug!("the kernel tells no changes: {error}"))
                .ok(),
            seen: sources(&ANYWHERE),
        }
    }

    /// Ready when something has changed, and then was quiet. Cancelled, it may miss that.
    pub(super) async fn next(&mut self) {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        if let Some(kernel) = &self.kernel {
            match settled(|| kernel.message()).await {
                Ok(()) => return,
                Err(error) => tracing::debug!("the kernel tells no more changes: {error}"),
            }
            self.kernel = None;
        }
        self.look().await;
    }

    /// Looks again and again until something is different.
    async fn look(&mut self) {
        loop {
            let now = sources(&ANYWHERE);
            if now != self.seen {
                self.seen = now;
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Ready a while after a message, and the others that follow it.
#[cfg_attr(
    not(any(target_os = "android", target_os = "linux")),
    allow(dead_code, reason = "nobody sends messages there")
)]
async fn settled<E, F: Future<Output = Result<(), E>>>(
    mut message: impl FnMut() -> F,
) -> Result<(), E> {
    message().await?;
    let latest = Instant::now() + AT_MOST;
    while Instant::now() < latest {
        let quiet = latest.min(Instant::now() + QUIET);
        match timeout_at(quiet, message()).await {
            Ok(more) => more?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// The kernel's messages (rtnetlink(7)).
#[cfg(any(target_os = "android", target_os = "linux"))]
mod kernel {
    use std::io;

    use rustix::io::Errno;
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    use tokio::net::UdpSocket;

    /// The groups of messages: links, and addresses and routes of both kinds (linux/rtnetlink.h, RTMGRP_…).
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
    /// The kernel finds a number for the socket.
    const ANY: u32 = 0;

    /// A socket that hears of changes. Tokio has none of this kind, but its datagrams are received as UDP's.
    #[derive(Debug)]
    pub(super) struct Kernel(UdpSocket);

    impl Kernel {
        /// Listens from now on. Fails where the process may not.
        pub(super) fn listen() -> io::Result<Self> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(ANY, GROUPS))?;
            Ok(Self(UdpSocket::from_std(socket.into())?))
        }

        /// Ready when a message has come, which is then gone. Cancel safe.
        pub(super) async fn message(&self) -> io::Result<()> {
            // What does not fit is thrown away, as is the rest.
            match self.0.recv(&mut [0; 16]).await {
                // More was to be told than there was room for.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => Ok(()),
                received => received.map(|_| ()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::Notify;
    use tokio::time::interval;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When a change is told of which messages come this far apart.
    async fn told_after(apart: Duration, messages: usize) -> Duration {
        let (message, begun) = (Notify::new(), Instant::now());
        let sending = async {
            let mut beat = interval(apart);
            for _ in 0..messages {
                beat.tick().await;
                message.notify_one();
            }
        };
        let telling = settled(|| async {
            message.notified().await;
            Ok::<_, Infallible>(())
        });
        let told = async {
            let Ok(()) = telling.await;
            begun.elapsed()
        };
        tokio::join!(sending, told).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_when_its_messages_are_over_and_within_a_second() {
        assert_eq!(told_after(MS, 1).await, QUIET);
        let three = told_after(100 * MS, 3).await;
        assert_eq!(three.as_millis() / 10, (200 * MS + QUIET).as_millis() / 10);
        assert_eq!(
            told_after(100 * MS, 50).await.as_millis() / 10,
            AT_MOST.as_millis() / 10
        );
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_tells_a_difference_is_seen() {
        let mut changes = Changes {
            #[cfg(any(target_os = "android", target_os = "linux"))]
            kernel: None,
            seen: vec![],
        };
        changes.next().await;
        assert_eq!(changes.seen.len(), ANYWHERE.len());
    }
}
