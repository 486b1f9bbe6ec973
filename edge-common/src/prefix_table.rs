//! Where the prefixes of a set stand: buckets of one cache line in an array, and a hash map for what does not fit.
//!
//! An array look-up is a few instructions of the program itself; a hash map is a call that costs as much as parsing
//! the packet. A prefix belongs to one bucket by its hash. A bucket holds three and says whether there are more, which
//! then are in the hash map; in a set that fills half of its buckets' places that is one bucket in twelve.

use crate::prefix::Prefix;
use crate::{Address, assert_size};

/// Prefixes that a bucket holds itself.
pub const SLOTS: usize = 3;

/// Bits of a slot's tag that hold the length; the value is in those above.
const LEN_BITS: u32 = 8;

/// Largest value that a prefix can have.
pub const MAX_VALUE: u32 = u32::MAX >> LEN_BITS;

/// A prefix with its value, or nothing (all zeroes: every key has a length).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Slot {
    address: Address,
    tag: u32,
}

/// Prefixes whose hash is the same: an element of the array.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    slots: [Slot; SLOTS],
    /// Other than 0: there are more in the hash map.
    has_more: u32,
}

assert_size!(Slot = 20, Bucket = 64);

/// What a bucket says of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its value.
    Value(u32),
    /// It is not here, but may be in the hash map.
    Elsewhere,
    /// It is not in the set.
    Nowhere,
}

impl Bucket {
    /// The bucket of these prefixes; those beyond the first [`SLOTS`] belong into the hash map. Values are at most
    /// [`MAX_VALUE`].
    #[must_use]
    pub fn of(entries: &[(Prefix, u32)]) -> Self {
        let mut bucket = Self {
            has_more: u32::from(entries.len() > SLOTS),
            ..Self::default()
        };
        for (slot, &(prefix, value)) in bucket.slots.iter_mut().zip(entries) {
            *slot = Slot {
                address: prefix.address,
                tag: prefix.len | value << LEN_BITS,
            };
        }
        bucket
    }

    /// Looks a prefix up.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, prefix: &Prefix) -> Found {
        for slot in &self.slots {
            let differs = slot.tag & ((1 << LEN_BITS) - 1) ^ prefix.len;
            let [a, b, c, d] = slot.address.0;
            let [e, f, g, h] = prefix.address.0;
            if differs | d ^ h == 0 && (a ^ e) | (b ^ f) | (c ^ g) == 0 {
                return Found::Value(slot.tag >> LEN_BITS);
            }
        }
        if self.has_more == 0 {
            Found::Nowhere
        } else {
            Found::Elsewhere
        }
    }
}

/// Index of a prefix's bucket, in a table of 2^`bits` buckets.
#[inline(always)]
#[must_use]
pub const fn bucket_of(prefix: &Prefix, bits: u32) -> u32 {
    hash(prefix.address, prefix.len) >> (32 - bits)
}

/// Hash of an address and a word; the upper bits are the well-mixed ones.
#[inline(always)]
pub(crate) const fn hash(address: Address, word: u32) -> u32 {
    let [a, b, c, d] = address.0;
    let first = ((a as u64) << 32 | b as u64) ^ word as u64;
    let second = (c as u64) << 32 | d as u64;
    // The same multiplier twice: each product's upper half depends on all bits of its factor.
    let hash = (first.wrapping_mul(MULTIPLIER) >> 29 ^ second).wrapping_mul(MULTIPLIER);
    (hash >> 32) as u32
}

/// 2^64 over the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn prefix(last: u32, len: u32) -> Prefix {
        Prefix {
            address: Address::v4_word(last),
            len,
        }
    }

    #[test]
    fn a_bucket_knows_its_prefixes_and_that_there_are_more() {
        let entries: Vec<_> = (1..=4).map(|n| (prefix(n, 128), n * 10)).collect();
        let rows = [
            (0, Found::Nowhere, Found::Nowhere),
            (1, Found::Value(10), Found::Nowhere),
            (3, Found::Value(10), Found::Nowhere),
            (4, Found::Value(10), Found::Elsewhere),
        ];
        for (count, first, last) in rows {
            let bucket = Bucket::of(&entries[..count]);
            assert_eq!(bucket.find(&prefix(1, 128)), first, "{count}");
            assert_eq!(bucket.find(&prefix(4, 128)), last, "{count}");
            assert_ne!(bucket.find(&prefix(1, 127)), Found::Value(10), "{count}");
        }
    }

    #[test]
    fn neighbours_spread_over_the_buckets() {
        const BITS: u32 = 10;
        let kinds: [fn(u32) -> Prefix; 3] = [
            |n| prefix(n.to_be(), 128),
            |n| prefix((n << 8).to_be(), 120),
            |n| Prefix {
                address: Address([n.to_be(), 0, 0, 0]),
                len: 64,
            },
        ];
        for (kind, make) in kinds.iter().enumerate() {
            let mut sizes = vec![0_u32; 1 << BITS];
            (0..1 << (BITS + 1)).for_each(|n| sizes[bucket_of(&make(n), BITS) as usize] += 1);
            // Two are expected in each; a random spread has more than three in one of seven.
            let crowded = sizes.iter().filter(|&&size| size > SLOTS as u32).count();
            assert!(crowded < 1 << (BITS - 2), "{kind}: {crowded} of {}", sizes.len());
        }
    }

    proptest! {
        /// A table of buckets and a map for the rest hold what one map holds.
        #[test]
        fn a_table_is_a_map(
            entries in prop::collection::hash_map((any::<[u32; 4]>(), 1..=128_u32), 0..=MAX_VALUE, 0..80),
            strangers in prop::collection::vec((any::<[u32; 4]>(), 1..=128_u32), 0..20),
        ) {
            const BITS: u32 = 4;
            let key = |&(address, len): &([u32; 4], u32)| Prefix { address: Address(address), len };
            let mut buckets = vec![Vec::new(); 1 << BITS];
            for (name, &value) in &entries {
                buckets[bucket_of(&key(name), BITS) as usize].push((key(name), value));
            }
            let rest: HashMap<_, _> = buckets.iter().flat_map(|bucket| bucket.iter().skip(SLOTS).copied()).collect();
            let table: Vec<_> = buckets.iter().map(|entries| Bucket::of(entries)).collect();
            for name in entries.keys().chain(&strangers) {
                let key = key(name);
                let found = match table[bucket_of(&key, BITS) as usize].find(&key) {
                    Found::Value(value) => Some(value),
                    Found::Elsewhere => rest.get(&key).copied(),
                    Found::Nowhere => None,
                };
                prop_assert_eq!(found, entries.get(name).copied());
            }
        }
    }
}
