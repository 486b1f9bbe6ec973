//! Virtual addresses and the services (VIPs) on them.

use crate::{Address, assert_size};

/// Key of the map `VIPS`.
///
/// Every virtual address also has a marker entry with port 0 and protocol 0, which tells a port that nobody
/// serves from an address that is not tier 1's.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Virtual address.
    pub address: Address,
    /// Port, host byte order.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// To a multiple of four bytes.
    pub padding: u8,
}

/// Value of the map `VIPS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of the VIP: of its counters, and of its name in userspace. `u16::MAX` in a marker entry.
    pub vip: u16,
    /// Which row of `WORKER_SOCKETS` holds the sockets that serve the VIP.
    pub listener: u16,
}

assert_size!(Key = 20, Entry = 4, Filter = 128);

impl Key {
    /// Key of a service.
    #[inline(always)]
    #[must_use]
    pub const fn service(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            padding: 0,
        }
    }

    /// Key of an address's marker entry.
    #[inline(always)]
    #[must_use]
    pub const fn marker(address: Address) -> Self {
        Self::service(address, 0, 0)
    }
}

impl Entry {
    /// Marks an address that is tier 1's alone: what no VIP serves is dropped.
    pub const MARKER: Self = Self {
        vip: u16::MAX,
        listener: u16::MAX,
    };

    /// Marks an address that the node has on an interface too, with services of its own (ssh, say): what no VIP
    /// serves passes to them.
    pub const SHARED_MARKER: Self = Self {
        vip: u16::MAX,
        listener: 0,
    };
}

/// 64-bit words of a [`Filter`].
const FILTER_WORDS: usize = 16;

/// A set of addresses that answers "certainly not in" or "perhaps in" without a map look-up.
///
/// Traffic for no VIP (the node's own, forwarded pods') must not pay for tier 1. One hash with 1024 bits sends
/// all but a few of such packets on after a shift and a mask; the rest find nothing in `VIPS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter {
    words: [u64; FILTER_WORDS],
}

impl Filter {
    /// Adds an address.
    pub fn insert(&mut self, address: &Address) {
        let (word, mask) = Self::bit(address);
        if let Some(word) = self.words.get_mut(word) {
            *word |= mask;
        }
    }

    /// False if the address was certainly not added.
    #[inline(always)]
    #[must_use]
    pub fn may_contain(&self, address: &Address) -> bool {
        let (word, mask) = Self::bit(address);
        self.words.get(word).is_some_and(|word| word & mask != 0)
    }

    #[inline(always)]
    const fn bit(address: &Address) -> (usize, u64) {
        let [a, b, c, d] = address.0;
        let hash = (a ^ b ^ c ^ d).wrapping_mul(0x9e37_79b1);
        ((hash >> 28) as usize, 1 << ((hash >> 22) & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_holds_what_was_added_and_refuses_nearly_all_else() {
        let mut filter = Filter::default();
        let vips = 0..8_u32;
        let address = |n: u32| Address::v4((0x0a00_0000 + n).to_be_bytes());
        for vip in vips.clone() {
            filter.insert(&address(vip));
        }
        assert!(vips.clone().all(|vip| filter.may_contain(&address(vip))));
        let strangers = (1000..101_000)
            .filter(|&n| filter.may_contain(&address(n)))
            .count();
        // 8 bits of 1024 are set: 781 of 100,000 are expected.
        assert!(strangers < 2000, "{strangers}");
    }
}
