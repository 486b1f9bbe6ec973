//! The filter before a map of prefixes, as userspace keeps it.

use std::collections::BTreeSet;

use aya::maps::{Array, MapData};
use edge_common::Address;
use edge_common::prefix::{Lengths, Prefix, place};

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

/// Cells and lengths of a set, and which words the kernel does not have yet.
#[derive(Debug)]
pub(crate) struct PrefixFilter {
    bits: u32,
    lengths: Lengths,
    words: Vec<u64>,
    changed: BTreeSet<u32>,
}

impl PrefixFilter {
    /// The filter of an empty set, with 2^`bits` cells; the kernel's is all zeroes as well.
    pub(crate) fn new(bits: u32) -> Self {
        Self {
            bits,
            lengths: Lengths::default(),
            words: vec![0; 1 << (bits - 3)],
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
        let (bits, words, changed) = (self.bits, &mut self.words, &mut self.changed);
        prefix.cells(|hash, bit| {
            let (at, shift) = place(hash, bits);
            if let Some(word) = words.get_mut(at as usize) {
                let with = *word | u64::from(bit) << shift;
                if with != *word {
                    *word = with;
                    changed.insert(at);
                }
            }
        });
    }

    /// Makes it the filter of another set.
    pub(crate) fn replace<'p>(&mut self, prefixes: impl Iterator<Item = &'p Prefix>) {
        let mut next = Self::new(self.bits);
        prefixes.for_each(|prefix| next.insert(prefix));
        let pairs = self.words.iter().zip(&next.words).zip(0..);
        let differing = pairs.filter(|((old, new), _)| old != new).map(|(_, at)| at);
        next.changed = differing.chain(self.changed.iter().copied()).collect();
        *self = next;
    }

    /// Writes what the kernel does not have yet.
    pub(crate) fn write(&mut self, map: &mut Array<MapData, u64>, name: &'static str) -> Result<(), Error> {
        while let Some(&at) = self.changed.first() {
            let word = self.words.get(at as usize).copied().unwrap_or_default();
            map.set(at, word, 0).map_err(Error::map(name, "write"))?;
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
        let mut filter = PrefixFilter::new(16);
        prefixes(&["192.0.2.0/24", "10.0.0.0/20"])
            .iter()
            .for_each(|prefix| filter.insert(prefix));
        // One cell, and 16; some may share a word.
        assert!((2..=17).contains(&filter.changed.len()), "{:?}", filter.changed);
        let written = filter.changed.len();
        filter.changed.clear();
        filter.replace(prefixes(&["192.0.2.0/24"]).iter());
        assert!(filter.changed.len() < written);
        assert_eq!(filter.words.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        assert_eq!(filter.lengths().v4, 1 << 23);
        filter.replace([].iter());
        assert_eq!(
            (filter.lengths(), filter.words.iter().sum::<u64>()),
            (Lengths::default(), 0)
        );
    }
}
