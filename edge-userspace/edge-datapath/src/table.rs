//! Tables of buckets (`edge_common::prefix_table`, `edge_common::vip_table`), as userspace keeps them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;

use aya::Pod;
use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use edge_common::prefix::Prefix;
use edge_common::{prefix_table, vip, vip_table};

use crate::Error;
use crate::maps::is_absent;

/// An element of a table.
pub(crate) trait Bucket: Pod {
    /// What is looked up.
    type Key: Pod + Eq + Debug;
    /// What is found.
    type Value: Pod + Eq + Debug;
    /// Keys that a bucket holds itself.
    const SLOTS: usize;
    /// The bucket of these keys, of which those beyond [`Bucket::SLOTS`] have no place in it.
    fn of(entries: &[(Self::Key, Self::Value)]) -> Self;
    /// Index of a key's bucket among 2^`bits`.
    fn place(key: &Self::Key, bits: u32) -> u32;
}

impl Bucket for prefix_table::Bucket {
    type Key = Prefix;
    type Value = u32;
    const SLOTS: usize = prefix_table::SLOTS;

    fn of(entries: &[(Prefix, u32)]) -> Self {
        Self::of(entries)
    }

    fn place(key: &Prefix, bits: u32) -> u32 {
        prefix_table::bucket_of(key, bits)
    }
}

impl Bucket for vip_table::Bucket {
    type Key = vip::Key;
    type Value = vip::Entry;
    const SLOTS: usize = vip_table::SLOTS;

    fn of(entries: &[(vip::Key, vip::Entry)]) -> Self {
        Self::of(entries)
    }

    fn place(key: &vip::Key, bits: u32) -> u32 {
        vip_table::bucket_of(key, bits)
    }
}

/// A table of prefixes.
pub(crate) type PrefixTable = Table<prefix_table::Bucket>;

/// Keys of a bucket with their values.
type Entries<B> = Vec<(<B as Bucket>::Key, <B as Bucket>::Value)>;

/// The kernel's side of a table.
pub(crate) struct TableMaps<B: Bucket> {
    /// Its buckets.
    pub(crate) buckets: Array<MapData, B>,
    /// What has no place in them.
    pub(crate) rest: BpfHashMap<MapData, B::Key, B::Value>,
    /// Name of the first, for errors.
    pub(crate) name: &'static str,
}

/// What a table holds, and which buckets the kernel does not have yet.
#[derive(Debug)]
pub(crate) struct Table<B: Bucket> {
    bits: u32,
    buckets: HashMap<u32, Entries<B>>,
    len: usize,
    changed: BTreeSet<u32>,
    /// What the kernel has in the hash map, by bucket.
    written: BTreeMap<u32, Entries<B>>,
}

impl<B: Bucket> Table<B> {
    /// An empty table of 2^`bits` buckets; the kernel's is all zeroes as well.
    pub(crate) fn new(bits: u32) -> Self {
        Self {
            bits,
            buckets: HashMap::new(),
            len: 0,
            changed: BTreeSet::new(),
            written: BTreeMap::new(),
        }
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A key's value.
    pub(crate) fn get(&self, key: &B::Key) -> Option<B::Value> {
        let bucket = self.buckets.get(&B::place(key, self.bits))?;
        let found = bucket.iter().find(|(of, _)| of == key);
        found.map(|&(_, value)| value)
    }

    /// Adds a key, or gives it another value.
    pub(crate) fn insert(&mut self, key: B::Key, value: B::Value) {
        let at = B::place(&key, self.bits);
        let bucket = self.buckets.entry(at).or_default();
        match bucket.iter_mut().find(|(of, _)| *of == key) {
            Some((_, old)) if *old == value => return,
            Some((_, old)) => *old = value,
            None => {
                bucket.push((key, value));
                self.len += 1;
            }
        }
        self.changed.insert(at);
    }

    /// Removes a key, and returns its value.
    pub(crate) fn remove(&mut self, key: &B::Key) -> Option<B::Value> {
        let at = B::place(key, self.bits);
        let bucket = self.buckets.get_mut(&at)?;
        let place = bucket.iter().position(|(of, _)| of == key)?;
        let (_, value) = bucket.remove(place);
        if bucket.is_empty() {
            self.buckets.remove(&at);
        }
        self.len -= 1;
        self.changed.insert(at);
        Some(value)
    }

    /// Removes the keys that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&B::Key) -> bool) {
        let keys = self.buckets.values().flatten().map(|&(key, _)| key);
        let gone: Vec<_> = keys.filter(|key| !wanted(key)).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Writes what the kernel does not have yet. A key that stays is found at any time meanwhile: what goes into the
    /// hash map is there before the bucket that refers to it, and what leaves it goes after.
    ///
    /// # Errors
    /// The kernel refuses; buckets before are written, and the next call goes on.
    pub(crate) fn write(&mut self, maps: &mut TableMaps<B>) -> Result<(), Error> {
        while let Some(&at) = self.changed.first() {
            let entries = self.buckets.get(&at).map_or(&[][..], Vec::as_slice);
            let rest = entries.get(B::SLOTS..).unwrap_or_default().to_vec();
            let old = self.written.get(&at).cloned().unwrap_or_default();
            for (key, value) in rest.iter().filter(|entry| !old.contains(entry)) {
                maps.rest
                    .insert(key, value, 0)
                    .map_err(Error::map(maps.name, "write what has no place in it"))?;
            }
            maps.buckets
                .set(at, B::of(entries), 0)
                .map_err(Error::map(maps.name, "write"))?;
            for (key, _) in &old {
                if rest.iter().any(|(of, _)| of == key) {
                    continue;
                }
                match maps.rest.remove(key) {
                    Err(error) if !is_absent(&error) => {
                        return Err(Error::map(maps.name, "remove what had no place in it")(error));
                    }
                    _ => {}
                }
            }
            if rest.is_empty() {
                self.written.remove(&at);
            } else {
                self.written.insert(at, rest);
            }
            self.changed.remove(&at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use edge_common::Address;

    use super::*;

    fn prefix(n: u32) -> Prefix {
        Prefix {
            address: Address::v4_word(n.to_be()),
            len: 128,
        }
    }

    #[test]
    fn a_table_gives_back_what_was_put_in_and_knows_what_to_write() {
        let mut table = PrefixTable::new(4);
        (0..100).for_each(|n| table.insert(prefix(n), n));
        table.insert(prefix(7), 1000);
        assert_eq!((table.len(), table.changed.len()), (100, 16));
        assert_eq!(
            (table.get(&prefix(7)), table.get(&prefix(8))),
            (Some(1000), Some(8))
        );
        table.changed.clear();
        table.insert(prefix(7), 1000);
        assert!(table.changed.is_empty(), "nothing changed");
        assert_eq!(
            (table.remove(&prefix(7)), table.remove(&prefix(7))),
            (Some(1000), None)
        );
        assert_eq!((table.len(), table.changed.len()), (99, 1));
        table.retain(|prefix| prefix.address.bits() % 2 == 0);
        assert_eq!(
            (table.len(), table.get(&prefix(9)), table.get(&prefix(8))),
            (50, None, Some(8))
        );
    }
}
