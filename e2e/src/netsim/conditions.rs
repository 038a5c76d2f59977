//! What one direction of a line does to packets.

use std::time::Duration;

/// The queue in front of a slow line, if a story asks for no other: 50 ms at 100 Mbit/s.
const QUEUE_BYTES: usize = 625_000;

/// The conditions of one direction. By default packets pass at once and whole.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// How long a packet flies, after it has left the queue.
    pub delay: Duration,
    /// What is lost by chance.
    pub loss: Loss,
    /// Bits a second, IP headers counted; `None` is as fast as this process can.
    pub bits_per_second: Option<u64>,
    /// How many bytes may wait for their turn, the packet that is being sent counted. What does not
    /// fit is dropped. Without a rate nothing waits.
    pub queue_bytes: usize,
    /// A black hole: larger IP packets vanish, though the devices take 1500 bytes.
    pub largest_packet: Option<usize>,
    /// What a firewall drops.
    pub block: Block,
    /// Nothing passes; what flies is lost as well.
    pub cut: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            loss: Loss::None,
            bits_per_second: None,
            queue_bytes: QUEUE_BYTES,
            largest_packet: None,
            block: Block::Nothing,
            cut: false,
        }
    }
}

/// Packets lost by chance; the same seed loses the same ones, counted from the first.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// None.
    None,
    /// Each with this probability, whatever became of the others.
    Random(f64),
    /// The same share of all packets, but in bursts (Gilbert's model).
    Bursts {
        /// The share of all packets that is lost, below 1.
        share: f64,
        /// How many packets are lost in a row, on average; at least 1.
        length: f64,
    },
}

/// What a firewall on the way drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Nothing.
    Nothing,
    /// Every UDP packet.
    Udp,
    /// UDP from and to this port.
    UdpPort(u16),
}
