//! A TUN device in a namespace: IP packets, one for each read and write.

use std::io;

use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, BorrowedFd};
use tun_rs::{DeviceBuilder, SyncDevice};

/// What the device is called in its namespace.
pub(super) const NAME: &str = "line0";
/// How many packets the kernel keeps for us. Beyond it, it drops: so many that what is lost is lost
/// because a story asked for it.
const KEPT_PACKETS: u32 = 10_000;
/// The largest packet that the device takes, in bytes.
const MTU: usize = 1500;

/// The device; it goes with this value. Reads and writes work from any namespace.
pub(super) struct Tun(SyncDevice);

impl Tun {
    /// Makes one in the namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let device = DeviceBuilder::new()
            .name(NAME)
            .mtu(MTU as u16)
            .tx_queue_len(KEPT_PACKETS)
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Self(device))
    }

    /// The next packet in place of what `buffer` holds; false if there is none now.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> bool {
        buffer.clear();
        buffer.reserve(MTU);
        rustix::io::read(&self.0, spare_capacity(buffer)).is_ok()
    }

    /// Whether the kernel took it.
    pub(super) fn write(&self, packet: &[u8]) -> bool {
        rustix::io::write(&self.0, packet).is_ok()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
