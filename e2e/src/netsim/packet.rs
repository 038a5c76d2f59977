//! Just enough of IP, UDP and TCP to know a packet by its ports and to change its address (RFC 791,
//! 8200, 768, 9293; checksums by RFC 1624).

use std::net::{Ipv4Addr, SocketAddrV4};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where the checksum of an IPv4 header is.
const IPV4_CHECKSUM: usize = 10;
/// More fragments follow, or this is a later one: the low 13 bits and the one above.
const FRAGMENT: u16 = 0x3fff;
const UDP: u8 = 17;
const TCP: u8 = 6;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// What a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    pub(super) source: u16,
    pub(super) destination: u16,
    /// Where the ports are.
    at: usize,
}

/// Which of its two addresses a packet changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Whether it is for many, as the kernel's own talk with its neighbours is.
pub(super) fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(16).is_some_and(|byte| byte >> 4 == 0xe),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => false,
    }
}

/// The ports of a whole UDP or TCP packet without extension headers; `None` for all others.
pub(super) fn flow(packet: &[u8]) -> Option<Flow> {
    let (protocol, at) = match packet.first()? >> 4 {
        4 if word(packet, 6)? & FRAGMENT == 0 => (*packet.get(9)?, usize::from(packet[0] & 15) * 4),
        6 => (*packet.get(6)?, IPV6_HEADER),
        _ => return None,
    };
    let (protocol, header) = match protocol {
        TCP => (Protocol::Tcp, 20),
        UDP => (Protocol::Udp, 8),
        _ => return None,
    };
    if at < IPV4_HEADER || packet.len() < at + header {
        return None;
    }
    Some(Flow {
        protocol,
        source: word(packet, at)?,
        destination: word(packet, at + 2)?,
        at,
    })
}

/// One address of a packet whose [`flow`] is known; `None` for IPv6.
pub(super) fn address(packet: &[u8], flow: &Flow, side: Side) -> Option<SocketAddrV4> {
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let (at, port) = match side {
        Side::Source => (12, flow.source),
        Side::Destination => (16, flow.destination),
    };
    let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(octets), port))
}

/// Gives an IPv4 packet with this flow another address, and mends its checksums.
pub(super) fn readdress(packet: &mut [u8], flow: &Flow, side: Side, to: SocketAddrV4) {
    let (ip, port) = match side {
        Side::Source => (12, flow.at),
        Side::Destination => (16, flow.at + 2),
    };
    let [a, b, c, d] = to.ip().octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let mut change = Change::default();
    change.put(packet, ip, high);
    change.put(packet, ip + 2, low);
    change.mend(packet, IPV4_CHECKSUM);
    change.put(packet, port, to.port());
    match flow.protocol {
        Protocol::Tcp => change.mend(packet, flow.at + 16),
        // Zero means that the sender made none.
        Protocol::Udp if word(packet, flow.at + 6) == Some(0) => {}
        Protocol::Udp => {
            change.mend(packet, flow.at + 6);
            if word(packet, flow.at + 6) == Some(0) {
                put(packet, flow.at + 6, 0xffff);
            }
        }
    }
}

/// The sum of all changes to words that a checksum covers: ~m + m' of RFC 1624, equation 3.
#[derive(Default)]
struct Change(u32);

impl Change {
    fn put(&mut self, packet: &mut [u8], at: usize, new: u16) {
        let old = word(packet, at).unwrap_or_default();
        self.0 += u32::from(!old) + u32::from(new);
        put(packet, at, new);
    }

    fn mend(&self, packet: &mut [u8], at: usize) {
        let mut sum = self.0 + u32::from(!word(packet, at).unwrap_or_default());
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        put(packet, at, !u16::try_from(sum).unwrap_or_default());
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn put(packet: &mut [u8], at: usize, word: u16) {
    packet[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: impl Iterator<Item = u8>) -> u16 {
        let bytes: Vec<u8> = bytes.collect();
        let words = bytes
            .chunks(2)
            .map(|two| u32::from_be_bytes([0, 0, two[0], two.get(1).copied().unwrap_or_default()]));
        let mut sum = words.sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).expect("folded")
    }

    /// The sum over pseudo header and segment: all ones if the checksum is right.
    fn transport_sum(packet: &[u8]) -> u16 {
        let length = u16::try_from(packet.len() - 20).expect("short");
        let pseudo = [&packet[12..20], &[0, packet[9]], &length.to_be_bytes()].concat();
        sum(pseudo.into_iter().chain(packet[20..].iter().copied()))
    }

    fn packet(protocol: u8, checksum_at: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 47, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([10, 77, 0, 1, 10, 77, 0, 2, 0x12, 0x34, 0x11, 0x51]);
        packet.resize(47, 0xa5);
        put(&mut packet, 20 + checksum_at, 0);
        let checksum = !transport_sum(&packet);
        put(&mut packet, 20 + checksum_at, checksum);
        let checksum = !sum(packet[..20].iter().copied());
        put(&mut packet, IPV4_CHECKSUM, checksum);
        packet
    }

    #[test]
    fn a_packet_with_another_address_has_good_checksums() {
        for (protocol, checksum_at) in [(UDP, 6), (TCP, 16)] {
            let mut packet = packet(protocol, checksum_at);
            let known = flow(&packet).expect("has ports");
            assert_eq!((known.source, known.destination), (0x1234, 0x1151));
            for (side, to) in [
                (Side::Source, "10.77.0.254:65535"),
                (Side::Destination, "0.0.0.0:1"),
            ] {
                let to = to.parse().expect("an address");
                readdress(&mut packet, &known, side, to);
                let changed = flow(&packet).expect("has ports");
                assert_eq!(address(&packet, &changed, side), Some(to));
                assert_eq!(sum(packet[..20].iter().copied()), 0xffff);
                assert_eq!(transport_sum(&packet), 0xffff);
            }
        }
    }

    #[test]
    fn no_prefix_of_a_packet_is_taken_for_more_than_it_is() {
        let whole = packet(UDP, 6);
        for end in 0..28 {
            assert_eq!(flow(&whole[..end]), None, "{end}");
        }
        assert!(flow(&whole[..28]).is_some());
    }

    #[test]
    fn multicast_is_known_in_both_families() {
        let mut v4 = packet(UDP, 6);
        assert!(!is_multicast(&v4));
        v4[16] = 0xe0;
        assert!(is_multicast(&v4));
        v4[16] = 0xff;
        assert!(!is_multicast(&v4), "broadcast");
        let mut v6 = [0x60; IPV6_HEADER];
        assert!(!is_multicast(&v6));
        v6[24] = 0xff;
        assert!(is_multicast(&v6));
        assert!(!is_multicast(&[]));
    }

    #[test]
    fn a_fragment_has_no_ports() {
        let mut fragment = packet(UDP, 6);
        put(&mut fragment, 6, 0x2000);
        assert_eq!(flow(&fragment), None);
    }
}
