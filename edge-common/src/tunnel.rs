//! The tunnels that carry packets to workers elsewhere.

use crate::{Address, assert_size, worker};

/// Time to live and hop limit of outer headers.
pub const TTL: u8 = 64;

/// What the tunnels' outer headers have in common.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// First outer source address of IPv4 tunnels, network byte order.
    pub source4: u32,
    /// Its bits that a flow's hash chooses, network byte order: receivers spread flows of different sources.
    pub source4_bits: u32,
    /// First outer source address of IPv6 tunnels, network byte order.
    pub source6: [u32; 4],
    /// Bits of the last word that a flow's hash chooses, network byte order.
    pub source6_bits: u32,
    /// To a multiple of eight bytes.
    pub padding: u32,
}

assert_size!(Settings = 32);

/// Bits of an IPv6 header's first word that are the flow label.
pub const LABEL: u32 = 0xf_ffff;

/// Source ports of GUE packets: those that IANA assigns to nobody (RFC 6335).
const SOURCE_PORTS: u32 = 0xc000;

/// What an inner header hands to the outer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Length of the packet, by its own account.
    pub len: u32,
    /// Type of service, or traffic class.
    pub class: u32,
    /// Flow label; 0 for IPv4.
    pub label: u32,
    /// Family.
    pub is_v6: bool,
}

impl Inner {
    /// From the first word of an IPv4 header, as it stands in memory.
    #[inline(always)]
    #[must_use]
    pub const fn v4(first: u32) -> Self {
        let first = u32::from_be(first);
        Self {
            len: first & 0xffff,
            class: first >> 16 & 0xff,
            label: 0,
            is_v6: false,
        }
    }

    /// From the first two words of an IPv6 header, as they stand in memory.
    #[inline(always)]
    #[must_use]
    pub const fn v6(first: u32, second: u32) -> Self {
        let (first, second) = (u32::from_be(first), u32::from_be(second));
        Self {
            len: (second >> 16) + crate::header::IPV6_LEN as u32,
            class: first >> 20 & 0xff,
            label: first & LABEL,
            is_v6: true,
        }
    }
}

/// What an outer header is made of, beside what all packets to a worker have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// What follows.
    pub protocol: u8,
    /// Length of the packet, this header included.
    pub len: u32,
    /// Type of service, or traffic class.
    pub class: u32,
    /// Hash of the flow.
    pub hash: u64,
}

impl Outer {
    /// The words of an IPv4 header, as they stand in memory. No fragments are made on the way (DF), so the identification
    /// is 0 (RFC 6864 4.1).
    #[inline(always)]
    #[must_use]
    pub const fn ipv4(&self, settings: &Settings, worker: &worker::Entry) -> [u32; 5] {
        let source = settings.source4 | (self.hash >> 16) as u32 & settings.source4_bits;
        let [.., destination] = worker.address.0;
        let len = (self.len as u16).to_be() as u32;
        let class = self.class << 8;
        let protocol = (self.protocol as u32) << 8;
        let sum = worker.header_sum + class + len + protocol + (source & 0xffff) + (source >> 16);
        [
            0x45 | class | len << 16,
            DONT_FRAGMENT << 16,
            TTL as u32 | protocol | (fold(sum) as u32) << 16,
            source,
            destination,
        ]
    }

    /// The words of an IPv6 header, as they stand in memory, that vary: the first two, and the last of the source address.
    #[inline(always)]
    #[must_use]
    pub const fn ipv6(&self, settings: &Settings, label: u32) -> [u32; 3] {
        let len = self.len - crate::header::IPV6_LEN as u32;
        let [.., source] = settings.source6;
        [
            (6 << 28 | self.class << 20 | label).to_be(),
            (len << 16 | (self.protocol as u32) << 8 | TTL as u32).to_be(),
            source | (self.hash >> 16) as u32 & settings.source6_bits,
        ]
    }

    /// The words of a UDP header, as they stand in memory. It has no checksum: that of the inner packet is there (RFC
    /// 6935 and 6936 allow it over IPv6, too, for tunnels whose ends know of it).
    #[inline(always)]
    #[must_use]
    pub const fn udp(&self, worker: &worker::Entry) -> [u32; 2] {
        let ip_len = if worker.address.is_v4() { 20 } else { 40 };
        let source = SOURCE_PORTS | self.hash as u32 >> 18;
        [
            (source << 16 | worker.port as u32).to_be(),
            ((self.len - ip_len) << 16).to_be(),
        ]
    }
}

/// DF, in the byte order of the wire, as it stands in memory.
const DONT_FRAGMENT: u32 = 0x4000_u16.to_be() as u32;

/// [`worker::Entry::header_sum`] of IPv4 headers to an address.
#[must_use]
pub const fn header_sum(destination: Address) -> u32 {
    let [.., destination] = destination.0;
    0x45 + DONT_FRAGMENT + TTL as u32 + (destination & 0xffff) + (destination >> 16)
}

/// The checksum of a sum of 16-bit words (RFC 1071), which may be in either byte order.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !(((once >> 16) + once) as u16)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        fold(words.sum())
    }

    proptest! {
        #[test]
        fn the_checksum_of_an_outer_header_is_right(
            destination in any::<[u8; 4]>(), class in 0..=255_u32, len in 40..=9000_u32, hash in any::<u64>(),
            protocol in any::<u8>(), source in any::<u32>(), bits in 0..=24_u32,
        ) {
            let address = Address::v4(destination);
            let worker = worker::Entry { address, header_sum: header_sum(address), ..worker::Entry::default() };
            let mask = !(u32::MAX << bits);
            let settings = Settings {
                source4: (source & !mask).to_be(),
                source4_bits: mask.to_be(),
                ..Settings::default()
            };
            let header = bytes(&Outer { protocol, len, class, hash }.ipv4(&settings, &worker));
            prop_assert_eq!(sum(&header), 0);
            prop_assert_eq!((header[0], u32::from(header[1])), (0x45, class));
            prop_assert_eq!(u32::from(header[2]) << 8 | u32::from(header[3]), len);
            prop_assert_eq!((header[8], header[9]), (TTL, protocol));
            prop_assert_eq!(&header[16..], &destination[..]);
            let source_out = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
            prop_assert_eq!(source_out & !mask, source & !mask);
        }
    }

    #[test]
    fn an_outer_ipv6_header_carries_class_and_label() {
        let outer = Outer {
            protocol: crate::IPV6,
            len: 140,
            class: 0x8c,
            hash: u64::MAX,
        };
        let settings = Settings {
            source6_bits: 0xffff_u32.to_be(),
            ..Settings::default()
        };
        let [first, second, source] = outer.ipv6(&settings, 0x12345);
        assert_eq!(
            bytes(&[first, second, source]),
            [0x68, 0xc1, 0x23, 0x45, 0, 100, 41, 64, 0, 0, 0xff, 0xff]
        );
        assert_eq!(
            Inner::v6(first, second),
            Inner {
                len: 140,
                class: 0x8c,
                label: 0x12345,
                is_v6: true
            }
        );
    }

    #[test]
    fn a_udp_header_has_a_port_of_the_flow_and_no_checksum() {
        let worker = worker::Entry {
            port: 6080,
            address: Address::v4([10, 0, 0, 1]),
            ..worker::Entry::default()
        };
        let outer = Outer {
            protocol: crate::UDP,
            len: 128,
            class: 0,
            hash: 0xffff_ffff,
        };
        assert_eq!(bytes(&outer.udp(&worker)), [0xff, 0xff, 0x17, 0xc0, 0, 108, 0, 0]);
    }
}
