//! Addresses as the data path keys them: 128 bits, IPv4 mapped into IPv6.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::assert_size;

/// An IPv4 or IPv6 address in 16 bytes, network byte order; IPv4 stands as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
///
/// One key type serves both families, so every table exists once. The four words are as they stand in memory:
/// no byte order is changed between the wire and the map.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Address(pub [u32; 4]);

assert_size!(Address = 16);

/// The word before an IPv4 address in its mapped form.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// From the four bytes of an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self::v4_word(u32::from_ne_bytes(bytes))
    }

    /// From an IPv4 address as the kernel's structures hold it: one word in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        matches!(self.0, [0, 0, MAPPED, _])
    }

    /// The address with all but its first `len` bits (of 128) zero.
    #[inline(always)]
    #[must_use]
    pub const fn masked(self, len: u32) -> Self {
        let [a, b, c, d] = self.0;
        Self([
            a & word_mask(len, 0),
            b & word_mask(len, 32),
            c & word_mask(len, 64),
            d & word_mask(len, 96),
        ])
    }

    /// The address as a number.
    #[must_use]
    pub const fn bits(self) -> u128 {
        let [a, b, c, d] = self.0;
        (u32::from_be(a) as u128) << 96
            | (u32::from_be(b) as u128) << 64
            | (u32::from_be(c) as u128) << 32
            | u32::from_be(d) as u128
    }

    /// The address of a number.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self([
            ((bits >> 96) as u32).to_be(),
            ((bits >> 64) as u32).to_be(),
            ((bits >> 32) as u32).to_be(),
            (bits as u32).to_be(),
        ])
    }

    /// The part of the address that counts as one source: an IPv4 address whole, of an IPv6 address the /64.
    ///
    /// A host commands all of its /64 (RFC 4291 2.5.1, RFC 8981), so a limit per full address would be none.
    #[inline(always)]
    #[must_use]
    pub const fn source_prefix(self) -> Self {
        match self.0 {
            [0, 0, MAPPED, _] => self,
            [high, low, ..] => Self([high, low, 0, 0]),
        }
    }
}

/// Mask, in network byte order, of the word that begins at bit `first` of an address, for its first `len` bits.
#[inline(always)]
const fn word_mask(len: u32, first: u32) -> u32 {
    if len <= first {
        0
    } else if len - first >= 32 {
        u32::MAX
    } else {
        (u32::MAX << (32 - (len - first))).to_be()
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_exact_mut(4).zip(address.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let v6 = Ipv6Addr::from(octets);
        v6.to_ipv4_mapped().map_or(Self::V6(v6), Self::V4)
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_into_a_key_and_back() {
        for text in [
            "0.0.0.0",
            "192.0.2.1",
            "255.255.255.255",
            "::",
            "2001:db8::1",
            "fe80::ff:fe00:1",
        ] {
            let address: IpAddr = text.parse().expect("literal");
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }

    #[test]
    fn a_mask_keeps_the_first_bits() {
        let rows = [
            ("192.0.2.255", 96 + 24, "192.0.2.0"),
            ("192.0.2.255", 128, "192.0.2.255"),
            ("192.0.2.255", 96 + 1, "128.0.0.0"),
            ("2001:db8:ffff::1", 32, "2001:db8::"),
            ("2001:db8:ffff::1", 36, "2001:db8:f000::"),
            ("2001:db8:ffff::1", 0, "::"),
        ];
        for (address, len, masked) in rows {
            let parse = |text: &str| Address::from(text.parse::<IpAddr>().expect("literal"));
            assert_eq!(parse(address).masked(len), parse(masked), "{address}/{len}");
            assert_eq!(Address::from_bits(parse(address).bits()), parse(address));
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_slash_64() {
        let rows = [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ];
        for (address, source) in rows {
            let parse = |text: &str| Address::from(text.parse::<IpAddr>().expect("literal"));
            assert_eq!(parse(address).source_prefix(), parse(source), "{address}");
        }
    }
}
