//! Virtual addresses and the services (VIPs) on them.

use crate::{Address, assert_size};

/// Key of the map `VIPS`.
///
/// A service is looked up by its port, then by port 0, which stands for all of them. Every virtual address (and every
/// virtual prefix) also has a marker entry with port 0 and protocol 0, which tells a port that nobody serves from an
/// address that is not tier 1's.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Virtual address; of a prefix the first.
    pub address: Address,
    /// Port, host byte order; 0 stands for all ports.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Bits at the address's end that do not count: 0 for an address, 8 for an IPv4 prefix of 24 bits.
    pub free_bits: u8,
}

/// Value of the map `VIPS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of the VIP: of its counters, and of its name in userspace. `u16::MAX` in a marker entry.
    pub vip: u16,
    /// Which row of `WORKER_SOCKETS` holds the sockets that serve the VIP.
    pub listener: u16,
    /// Whose workers serve it: the element of `MAGLEV`. [`LOCAL_POOL`] is that of this node's sockets.
    pub pool: u16,
    /// What stands for the VIP in the connection table: its index, and a number that changes when the index is given to
    /// another VIP ([`tag`]).
    pub tag: u16,
    /// Bits: how its flows are spread, or what a marker entry says of its address.
    pub flags: u32,
}

/// Pool of this node's sockets, which `sk_lookup` selects from.
pub const LOCAL_POOL: u16 = 0;

/// Bits of a VIP's tag that are its index; the rest is the generation.
const INDEX_BITS: u32 = crate::maps::MAX_VIPS.ilog2();

/// Generations before they come round.
pub const GENERATIONS: u16 = 1 << (16 - INDEX_BITS);

/// The tag of a VIP's index in its n-th use.
#[must_use]
pub const fn tag(index: u16, generation: u16) -> u16 {
    index | (generation % GENERATIONS) << INDEX_BITS
}

/// The VIP's index in a tag.
#[must_use]
pub const fn index(tag: u16) -> u16 {
    tag & ((1 << INDEX_BITS) - 1)
}

assert_size!(Key = 20, Entry = 12, PrefixKey = 20, Filter = 128);

/// Key of the trie `VIP_PREFIXES`: the longest virtual prefix that covers an address. Its value is
/// [`Key::free_bits`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixKey {
    /// Bits that count, of the 128.
    pub len: u32,
    /// First address.
    pub address: Address,
}

impl Key {
    /// Key of a service on one address.
    #[inline(always)]
    #[must_use]
    pub const fn service(address: Address, port: u16, protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            free_bits: 0,
        }
    }

    /// Key of an address's marker entry.
    #[inline(always)]
    #[must_use]
    pub const fn marker(address: Address) -> Self {
        Self::service(address, 0, 0)
    }

    /// The same service on the prefix that an address belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn on_prefix(self, free_bits: u8) -> Self {
        Self {
            address: self.address.masked(128 - free_bits as u32),
            free_bits,
            ..self
        }
    }

    /// The same service for all ports.
    #[inline(always)]
    #[must_use]
    pub const fn on_all_ports(self) -> Self {
        Self { port: 0, ..self }
    }
}

impl Entry {
    /// The worker is chosen without regard to the client's port: all connections of a client to one port go to one
    /// worker.
    pub const HASH_NO_SOURCE_PORT: u32 = 1 << 0;
    /// The worker is chosen by the port that the client connects to alone.
    pub const HASH_DESTINATION_PORT: u32 = 1 << 1;
    /// The worker is chosen by the client's address alone, and the connection table remembers the address, not the
    /// connection: whatever a client opens goes to the worker that it has, while it has any.
    pub const SOURCE_AFFINITY: u32 = 1 << 2;
    /// The connection table is left out: a flow's worker is the table's, whatever it was before.
    pub const NO_CONNECTION_TABLE: u32 = 1 << 3;
    /// The pool has workers elsewhere: the packet is forwarded, and its flow remembered. Of a marker: a VIP of the address
    /// has it, so ICMP errors may be about connections of workers elsewhere.
    pub const FORWARDS: u32 = 1 << 4;
    /// Packets of TCP connections that the table does not know from their beginning carry the slot's previous owner, to which
    /// the selected worker hands them on if it has no such connection.
    pub const SECOND_HOP: u32 = 1 << 5;
    /// The VIP stands for all ports, or for all addresses of a prefix: behind it is more than one listening socket.
    pub const IS_WIDE: u32 = 1 << 6;
    /// Of a marker: the node has the address on an interface too, with services of its own (ssh, say): what no VIP serves
    /// passes to them, and the node answers ICMP itself.
    pub const SHARED: u32 = 1 << 16;
    /// Of a marker: what no VIP serves passes to the stack, because the configuration says so.
    pub const PASSES_UNSERVED: u32 = 1 << 17;
    /// Of a marker: a VIP of the address has workers on this node, whose stack takes packets to it for its own.
    pub const IS_HERE: u32 = 1 << 18;

    /// The marker of an address, with the last two bits or without.
    #[must_use]
    pub const fn marker(flags: u32) -> Self {
        Self {
            vip: u16::MAX,
            listener: u16::MAX,
            pool: u16::MAX,
            tag: u16::MAX,
            flags,
        }
    }

    /// Whether a bit of `flags` is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Of a marker: whether all that the address is for is elsewhere. The stack of this node then has no use for a packet to
    /// it, and would send it on by its routes: to the router that it came from, which sends it back, and so on until its time
    /// to live is over.
    #[inline(always)]
    #[must_use]
    pub const fn is_elsewhere(&self) -> bool {
        self.has(Self::FORWARDS) && !self.has(Self::SHARED | Self::PASSES_UNSERVED | Self::IS_HERE)
    }
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

    /// Adds all addresses of a virtual prefix, to a filter that is asked by [`Filter::may_cover`].
    pub fn insert_prefix(&mut self, address: &Address, free_bits: u8) {
        let len = 128 - u32::from(free_bits);
        if len >= granule(address) {
            self.insert(&address.masked(granule(address)));
        } else {
            // It has too many granules to be worth it.
            self.words = [u64::MAX; FILTER_WORDS];
        }
    }

    /// False if no prefix that was added has the address.
    #[inline(always)]
    #[must_use]
    pub fn may_cover(&self, address: &Address) -> bool {
        self.may_contain(&address.masked(granule(address)))
    }

    #[inline(always)]
    const fn bit(address: &Address) -> (usize, u64) {
        let [a, b, c, d] = address.0;
        let hash = (a ^ b ^ c ^ d).wrapping_mul(0x9e37_79b1);
        ((hash >> 28) as usize, 1 << ((hash >> 22) & 63))
    }
}

/// First bits of an address that stand for it in a filter of prefixes: 16 of an IPv4 address, 32 of an IPv6 address.
#[inline(always)]
const fn granule(address: &Address) -> u32 {
    if address.is_v4() { 96 + 16 } else { 32 }
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

    #[test]
    fn a_filter_of_prefixes_covers_every_address_in_them() {
        let mut filter = Filter::default();
        let address = |text: &str| Address::from(text.parse::<core::net::IpAddr>().expect("literal"));
        filter.insert_prefix(&address("192.0.2.0"), 8);
        filter.insert_prefix(&address("2001:db8:7::"), 80);
        for inside in ["192.0.2.0", "192.0.2.255", "2001:db8:7::1", "2001:db8:7:ffff::"] {
            assert!(filter.may_cover(&address(inside)), "{inside}");
        }
        for outside in ["198.51.100.1", "2001:db9:7::1"] {
            assert!(!filter.may_cover(&address(outside)), "{outside}");
        }
        filter.insert_prefix(&address("10.0.0.0"), 24);
        assert!(filter.may_cover(&address("10.200.3.4")));
    }

    #[test]
    fn a_tag_tells_an_index_and_its_use() {
        assert_eq!((tag(1023, 0), tag(0, 1), tag(5, GENERATIONS)), (1023, 1024, 5));
    }
}
