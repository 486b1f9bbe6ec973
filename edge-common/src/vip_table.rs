//! Where the services and markers of virtual addresses stand: buckets of one cache line in an array, and a hash map for
//! what does not fit, as [prefixes](crate::prefix_table) do.

use crate::assert_size;
use crate::prefix_table::hash;
use crate::vip::{Entry, Key};

/// Services that a bucket holds itself.
pub const SLOTS: usize = 2;

/// Bit of an entry's flags: the slot is taken. Never seen outside of a bucket.
const TAKEN: u32 = 1 << 30;
/// Bit of an entry's flags in the first slot: there are more in the hash map. Never seen outside of a bucket.
const HAS_MORE: u32 = 1 << 31;

/// A service with its entry, or nothing (all zeroes).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    key: Key,
    entry: Entry,
}

/// Services whose hash is the same: an element of the array.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    slots: [Slot; SLOTS],
}

assert_size!(Slot = 32, Bucket = 64);

/// What a bucket says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its entry.
    Entry(Entry),
    /// It is not here, but may be in the hash map.
    Elsewhere,
    /// There is none.
    Nowhere,
}

impl Bucket {
    const EMPTY: Slot = Slot {
        key: Key::marker(crate::Address([0; 4])),
        entry: Entry {
            vip: 0,
            listener: 0,
            pool: 0,
            tag: 0,
            flags: 0,
        },
    };

    /// The bucket of these services; those beyond the first [`SLOTS`] belong into the hash map.
    #[must_use]
    pub fn of(entries: &[(Key, Entry)]) -> Self {
        let mut bucket = Self {
            slots: [Self::EMPTY; SLOTS],
        };
        for (slot, &(key, entry)) in bucket.slots.iter_mut().zip(entries) {
            let flags = entry.flags | TAKEN;
            *slot = Slot {
                key,
                entry: Entry { flags, ..entry },
            };
        }
        if entries.len() > SLOTS {
            bucket.slots[0].entry.flags |= HAS_MORE;
        }
        bucket
    }

    /// Looks a service up.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: &Key) -> Found {
        for slot in &self.slots {
            let [a, b, c, d] = slot.key.address.0;
            let [e, f, g, h] = key.address.0;
            let differs = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (word(&slot.key) ^ word(key));
            if differs == 0 && slot.entry.flags & TAKEN != 0 {
                let flags = slot.entry.flags & !(TAKEN | HAS_MORE);
                return Found::Entry(Entry { flags, ..slot.entry });
            }
        }
        if self.slots[0].entry.flags & HAS_MORE == 0 {
            Found::Nowhere
        } else {
            Found::Elsewhere
        }
    }
}

/// Port, protocol and free bits.
#[inline(always)]
const fn word(key: &Key) -> u32 {
    (key.port as u32) << 16 | (key.protocol as u32) << 8 | key.free_bits as u32
}

/// Index of a service's bucket, in a table of 2^`bits` buckets.
#[inline(always)]
#[must_use]
pub const fn bucket_of(key: &Key, bits: u32) -> u32 {
    hash(key.address, word(key)) >> (32 - bits)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::Address;

    #[test]
    fn a_bucket_knows_its_services_and_that_there_are_more() {
        let key = |port| Key::service(Address::v4([192, 0, 2, 1]), port, crate::TCP);
        let entry = |vip| Entry {
            vip,
            listener: 7,
            pool: 3,
            tag: 9,
            flags: Entry::FORWARDS,
        };
        let entries: Vec<_> = (1..=3).map(|n| (key(n), entry(n))).collect();
        let rows = [
            (0, Found::Nowhere, Found::Nowhere),
            (1, Found::Entry(entry(1)), Found::Nowhere),
            (2, Found::Entry(entry(1)), Found::Nowhere),
            (3, Found::Entry(entry(1)), Found::Elsewhere),
        ];
        for (count, first, last) in rows {
            let bucket = Bucket::of(&entries[..count]);
            assert_eq!(bucket.find(&key(1)), first, "{count}");
            assert_eq!(bucket.find(&key(3)), last, "{count}");
        }
    }

    #[test]
    fn an_empty_slot_is_no_service_not_even_of_the_address_that_it_holds() {
        let key = Key::marker(Address([0; 4]));
        assert_eq!(Bucket::of(&[]).find(&key), Found::Nowhere);
        let marker = Entry::marker(Entry::SHARED);
        assert_eq!(Bucket::of(&[(key, marker)]).find(&key), Found::Entry(marker));
    }
}
