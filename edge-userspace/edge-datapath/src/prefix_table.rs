//! A table of prefixes, as userspace keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::{Array, HashMap as BpfHashMap, MapData};
use edge_common::prefix::Prefix;
use edge_common::prefix_table::{Bucket, SLOTS, bucket_of};

use crate::Error;
use crate::maps::is_absent;

/// The kernel's side of a table.
pub(crate) struct TableMaps {
    /// Its buckets.
    pub(crate) buckets: Array<MapData, Bucket>,
    /// What has no place in them.
    pub(crate) rest: BpfHashMap<MapData, Prefix, u32>,
    /// Name of the first, for errors.
    pub(crate) name: &'static str,
}

/// What a table holds, and which buckets the kernel does not have yet.
#[derive(Debug)]
pub(crate) struct PrefixTable {
    bits: u32,
    buckets: HashMap<u32, Vec<(Prefix, u32)>>,
    len: usize,
    changed: BTreeSet<u32>,
    /// What the kernel has in the hash map, by bucket.
    written: BTreeMap<u32, Vec<(Prefix, u32)>>,
}

impl PrefixTable {
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

    /// Number of prefixes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A prefix's value.
    pub(crate) fn get(&self, prefix: &Prefix) -> Option<u32> {
        let bucket = self.buckets.get(&bucket_of(prefix, self.bits))?;
        bucket
            .iter()
            .find(|(of, _)| of == prefix)
            .map(|&(_, value)| value)
    }

    /// Adds a prefix, or gives it another value.
    pub(crate) fn insert(&mut self, prefix: Prefix, value: u32) {
        let at = bucket_of(&prefix, self.bits);
        let bucket = self.buckets.entry(at).or_default();
        match bucket.iter_mut().find(|(of, _)| *of == prefix) {
            Some((_, old)) if *old == value => return,
            Some((_, old)) => *old = value,
            None => {
                bucket.push((prefix, value));
                self.len += 1;
            }
        }
        self.changed.insert(at);
    }

    /// Removes a prefix, and returns its value.
    pub(crate) fn remove(&mut self, prefix: &Prefix) -> Option<u32> {
        let at = bucket_of(prefix, self.bits);
        let bucket = self.buckets.get_mut(&at)?;
        let place = bucket.iter().position(|(of, _)| of == prefix)?;
        let (_, value) = bucket.remove(place);
        if bucket.is_empty() {
            self.buckets.remove(&at);
        }
        self.len -= 1;
        self.changed.insert(at);
        Some(value)
    }

    /// Removes the prefixes that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&Prefix) -> bool) {
        let gone = self
            .buckets
            .values()
            .flatten()
            .filter(|(prefix, _)| !wanted(prefix));
        let gone: Vec<_> = gone.map(|&(prefix, _)| prefix).collect();
        for prefix in gone {
            self.remove(&prefix);
        }
    }

    /// Writes what the kernel does not have yet. A prefix that stays is found at any time meanwhile: what goes into the
    /// hash map is there before the bucket that refers to it, and what leaves it goes after.
    ///
    /// # Errors
    /// The kernel refuses; buckets before are written, and the next call goes on.
    pub(crate) fn write(&mut self, maps: &mut TableMaps) -> Result<(), Error> {
        while let Some(&at) = self.changed.first() {
            let entries = self.buckets.get(&at).map_or(&[][..], Vec::as_slice);
            let rest = entries.get(SLOTS..).unwrap_or_default().to_vec();
            let old = self.written.get(&at).cloned().unwrap_or_default();
            for (prefix, value) in rest.iter().filter(|entry| !old.contains(entry)) {
                maps.rest
                    .insert(prefix, value, 0)
                    .map_err(Error::map(maps.name, "write what has no place in it"))?;
            }
            maps.buckets
                .set(at, Bucket::of(entries), 0)
                .map_err(Error::map(maps.name, "write"))?;
            let is_gone = |&&(prefix, _): &&(Prefix, u32)| rest.iter().all(|&(of, _)| of != prefix);
            for (prefix, _) in old.iter().filter(is_gone) {
                match maps.rest.remove(prefix) {
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
