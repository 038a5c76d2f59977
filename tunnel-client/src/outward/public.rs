//! Which addresses are public: the same host for everybody, and nothing of the network that we are in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether whoever dials `address` leaves the network that he is in.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match inside(address) {
            Some(v4) => is_public_v4(v4),
            // Global unicast (RFC 4291, 2.4).
            None => address.segments()[0] & 0xe000 == 0x2000,
        },
    }
}

/// The special-purpose networks of RFC 6890, but those for documentation: nobody is there.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = match address.octets() {
        [0 | 240.., ..] | [192, 0, 0, _] => true,
        // Behind a carrier's NAT (RFC 6598), and between test devices (RFC 2544).
        [100, 64..=127, ..] | [198, 18..=19, ..] => true,
        _ => address.is_private() || address.is_loopback(),
    };
    !is_special && !address.is_link_local() && !address.is_multicast()
}

/// The IPv4 address to which an IPv6 one leads: mapped (RFC 4291, 2.5.5.2), NAT64 (RFC 6052, 2.1) or 6to4
/// (RFC 3056, 2).
fn inside(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_local_network_is_not_public_however_it_is_written() {
        let inner = "0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 \
                     172.31.255.255 192.0.0.8 192.168.1.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 \
                     ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:192.168.1.1 64:ff9b::10.0.0.1 64:ff9b:1::1 2002:a00:1::1 \
                     fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1";
        for text in inner.split_whitespace() {
            let address = text.parse().expect(text);
            assert!(!is_public(address), "{text}");
        }
        let public = "1.1.1.1 9.255.255.255 11.0.0.1 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 \
                      192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 \
                      2002:101:101::1 2606:4700::1111 2a00::1";
        for text in public.split_whitespace() {
            let address = text.parse().expect(text);
            assert!(is_public(address), "{text}");
        }
    }
}
