//! Indexes that stay with their owners from one configuration to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::Error;

/// Indexes by the names of what has them, and how often each was given to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexes<N: Ord> {
    by_name: BTreeMap<N, u16>,
    names: BTreeMap<u16, N>,
    uses: BTreeMap<u16, u16>,
    /// Indexes that a predecessor gave away, by their owners' digests. They count until the first names are known.
    found: BTreeMap<u64, u16>,
}

/// Names that have a digest of their own.
pub trait Digest {
    /// What stands for the name where it is written down ([`edge_common::tenant::digest`]).
    fn digest(&self) -> u64;
}

impl<N: Ord> Default for Indexes<N> {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            names: BTreeMap::new(),
            uses: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }
}

impl<N: Ord> Indexes<N> {
    /// What a predecessor wrote down: the owners' digests with their indexes, and how often each index was given away.
    pub(crate) fn found(owners: BTreeMap<u64, u16>, uses: BTreeMap<u16, u16>) -> Self {
        Self {
            uses,
            found: owners,
            ..Self::default()
        }
    }

    /// How often each index was given away.
    pub(crate) fn all_uses(&self) -> impl Iterator<Item = (u16, u16)> {
        self.uses.iter().map(|(&index, &uses)| (index, uses))
    }

    /// The index of a name.
    #[must_use]
    pub fn get(&self, name: &N) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// How many names have had an index before its present one.
    #[must_use]
    pub fn uses(&self, index: u16) -> u16 {
        self.uses
            .get(&index)
            .copied()
            .unwrap_or_default()
            .saturating_sub(1)
    }

    /// The name that has an index.
    #[must_use]
    pub fn name_at(&self, index: u16) -> Option<&N> {
        self.names.get(&index)
    }

    /// Every name with its index.
    pub fn iter(&self) -> impl Iterator<Item = (&N, u16)> {
        self.by_name.iter().map(|(name, &index)| (name, index))
    }
}

/// Gives each name an index: the old one, or the lowest that none of these names has or had.
pub(crate) fn indexes<N: Ord + Clone + Digest>(
    old: &Indexes<N>,
    names: BTreeSet<N>,
    what: &'static str,
    range: Range<u16>,
) -> Result<Indexes<N>, Error> {
    let limit = range.len();
    if names.len() > limit {
        return Err(Error::TooMany {
            what,
            wanted: names.len(),
            limit,
        });
    }
    let of_old = |name: &N| {
        let found = || old.found.get(&name.digest()).copied();
        old.get(name).or_else(found).filter(|index| range.contains(index))
    };
    let kept: BTreeSet<u16> = names.iter().filter_map(of_old).collect();
    // An index that is given away in the same change would lend the old owner's packets to the new one's counters,
    // so the free ones come first.
    let in_use: BTreeSet<u16> = old.by_name.values().chain(old.found.values()).copied().collect();
    let fresh = range.clone().filter(|index| !in_use.contains(index));
    let given_away = range
        .clone()
        .filter(|index| in_use.contains(index) && !kept.contains(index));
    let mut unused = fresh.chain(given_away);
    let mut next = Indexes {
        by_name: BTreeMap::new(),
        names: BTreeMap::new(),
        uses: old.uses.clone(),
        found: BTreeMap::new(),
    };
    for name in names {
        if let Some(index) = of_old(&name) {
            next.by_name.insert(name, index);
        } else if let Some(index) = unused.next() {
            let uses = next.uses.entry(index).or_default();
            *uses = uses.wrapping_add(1);
            next.by_name.insert(name, index);
        }
    }
    next.names = next
        .by_name
        .iter()
        .map(|(name, &index)| (index, name.clone()))
        .collect();
    Ok(next)
}
