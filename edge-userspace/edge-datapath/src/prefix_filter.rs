//! The filter before a map of prefixes, as userspace keeps it.

use std::collections::BTreeSet;

use aya::maps::{Array, MapData};
use edge_common::Address;
use edge_common::maps::{self as names, CELL_BITS};
use edge_common::prefix::{CELLS_PER_WORD, HASH_BITS, Lengths, Prefix};

use crate::Error;

/// The keys under which a prefix stands in a map.
pub(crate) fn keys(prefix: edge_model::Prefix) -> Vec<Prefix> {
    let mut keys = Vec::with_capacity(1);
    Prefix::keys(
        Address::from(prefix.address()),
        u32::from(prefix.prefix_len()),
        |key| keys.push(key),
    );
    keys
}

/// One set's bytes of the cells, the lengths of its prefixes, and which words the kernel does not have yet.
#[derive(Debug)]
pub(crate) struct PrefixFilter {
    half: u32,
    lengths: Lengths,
    bytes: Vec<u8>,
    changed: BTreeSet<u32>,
}

impl PrefixFilter {
    /// The filter of an empty set that has this half of the cells; the kernel's is all zeroes as well.
    pub(crate) fn new(half: u32) -> Self {
        Self {
            half,
            lengths: Lengths::default(),
            bytes: vec![0; 1 << CELL_BITS],
            changed: BTreeSet::new(),
        }
    }

    /// Lengths of the prefixes in the set.
    pub(crate) fn lengths(&self) -> Lengths {
        self.lengths
    }

    /// Adds a prefix.
    pub(crate) fn insert(&mut self, prefix: &Prefix) {
        self.lengths.insert(prefix);
        let (bytes, changed) = (&mut self.bytes, &mut self.changed);
        prefix.cells(|hash, bit| {
            let cell = hash >> (HASH_BITS - CELL_BITS);
            if let Some(byte) = bytes.get_mut(cell as usize)
                && *byte & bit == 0
            {
                *byte |= bit;
                changed.insert(cell / CELLS_PER_WORD);
            }
        });
    }

    /// Makes it the filter of another set.
    pub(crate) fn replace<'p>(&mut self, prefixes: impl Iterator<Item = &'p Prefix>) {
        let mut next = Self::new(self.half);
        prefixes.for_each(|prefix| next.insert(prefix));
        let pairs = self.bytes.iter().zip(&next.bytes).zip(0..);
        let differing = pairs
            .filter(|((old, new), _)| old != new)
            .map(|(_, cell): (_, u32)| cell / CELLS_PER_WORD);
        next.changed = differing.chain(self.changed.iter().copied()).collect();
        *self = next;
    }

    /// Writes what the kernel does not have yet, and leaves the other set's half as it is.
    pub(crate) fn write(&mut self, map: &mut Array<MapData, u64>) -> Result<(), Error> {
        while let Some(&at) = self.changed.first() {
            let mut word = map.get(&at, 0).map_err(Error::map(names::CELLS, "read"))?;
            for cell in 0..CELLS_PER_WORD {
                let byte = self.bytes.get((at * CELLS_PER_WORD + cell) as usize);
                let shift = cell * 16 + self.half;
                word &= !(0xff << shift);
                word |= u64::from(byte.copied().unwrap_or_default()) << shift;
            }
            map.set(at, word, 0).map_err(Error::map(names::CELLS, "write"))?;
            self.changed.remove(&at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        let prefix = |text: &&str| keys(text.parse().expect("literal"));
        texts.iter().flat_map(prefix).collect()
    }

    #[test]
    fn a_replaced_filter_is_the_one_of_its_set_and_knows_what_to_write() {
        let mut filter = PrefixFilter::new(edge_common::prefix::half::SOURCES);
        prefixes(&["192.0.2.0/24", "10.0.0.0/20"])
            .iter()
            .for_each(|prefix| filter.insert(prefix));
        // One cell, and 16; some may share a word.
        assert!((2..=17).contains(&filter.changed.len()), "{:?}", filter.changed);
        let written = filter.changed.len();
        filter.changed.clear();
        filter.replace(prefixes(&["192.0.2.0/24"]).iter());
        assert!(filter.changed.len() < written);
        assert_eq!(filter.bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_eq!(filter.lengths().v4, 1 << 23);
        filter.replace([].iter());
        assert_eq!(
            (
                filter.lengths(),
                filter.bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
            ),
            (Lengths::default(), 0)
        );
    }
}
