//! A map whose copies share what they have in common.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

/// Entries that a shard holds on average before the number of shards doubles: a change copies one shard and the list
/// of shards, which for ten thousand entries are about as long.
const SHARD: usize = 64;

/// A map for parts of a Snapshot: a clone costs one reference count, a change copies a few dozen entries and leaves
/// all clones as they were, and what changed between two maps of one lineage is found without looking at the rest.
///
/// Entries are kept by the hash of their keys, so equal maps iterate in the same order in every process; the order has
/// no meaning otherwise.
pub struct SharedMap<K, V> {
    shards: Arc<Vec<Arc<Shard<K, V>>>>,
    len: usize,
}

/// Entries by ascending hash.
type Shard<K, V> = Vec<(u64, K, V)>;

/// One key in which two maps differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'m, K, V> {
    /// The key.
    pub key: &'m K,
    /// Its value in the older map.
    pub before: Option<&'m V>,
    /// Its value in the newer map.
    pub after: Option<&'m V>,
}

impl<K, V> SharedMap<K, V> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in the order of the keys' hashes.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let entries = self.shards.iter().flat_map(|shard| shard.iter());
        entries.map(|(_, key, value)| (key, value))
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether both are one map in memory.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shards, &other.shards)
    }

    /// The shard of a hash: its upper bits, so that shards are ranges of hashes.
    fn shard_of(&self, hash: u64) -> usize {
        let bits = self.shards.len().trailing_zeros();
        hash.checked_shr(64 - bits)
            .map_or(0, |shard| usize::try_from(shard).unwrap_or(0))
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = hash_of(key);
        let shard = self.shards.get(self.shard_of(hash))?;
        let found = position(shard, hash, key).ok()?;
        shard.get(found).map(|(_, _, value)| value)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value in; returns the one that the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.len >= self.shards.len() * SHARD * 2 {
            *self = Self::with(self.take_entries());
        }
        let hash = hash_of(&key);
        let number = self.shard_of(hash);
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(number)?);
        match position(shard, hash, &key) {
            Ok(found) => shard
                .get_mut(found)
                .map(|(_, _, old)| std::mem::replace(old, value)),
            Err(free) => {
                shard.insert(free, (hash, key, value));
                self.len += 1;
                None
            }
        }
    }

    /// Takes a key out; returns its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let hash = hash_of(key);
        let number = self.shard_of(hash);
        let found = position(self.shards.get(number)?, hash, key).ok()?;
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(number)?);
        self.len -= 1;
        Some(shard.remove(found).2)
    }

    /// The keys whose values are not the same in `older`, which costs no more than the shards in which the maps differ
    /// when one came from the other by changes.
    pub fn changes_since<'m>(
        &'m self,
        older: &'m Self,
        is_same: impl Fn(&V, &V) -> bool,
    ) -> Vec<Change<'m, K, V>> {
        let mut changes = vec![];
        if self.shards.len() == older.shards.len() {
            let pairs = self.shards.iter().zip(&*older.shards);
            for (now, before) in pairs.filter(|(now, before)| !Arc::ptr_eq(now, before)) {
                compare(now, before, &is_same, &mut changes);
            }
        } else {
            let (now, before) = (self.entries(), older.entries());
            compare_all(&now, &before, &is_same, &mut changes);
        }
        changes
    }

    fn entries(&self) -> Vec<&(u64, K, V)> {
        self.shards.iter().flat_map(|shard| shard.iter()).collect()
    }

    fn take_entries(&mut self) -> Shard<K, V> {
        let shards = std::mem::take(&mut self.shards);
        let shards = Arc::try_unwrap(shards).unwrap_or_else(|shared| Vec::clone(&shared));
        let entries = shards
            .into_iter()
            .flat_map(|shard| Arc::try_unwrap(shard).unwrap_or_else(|shared| Vec::clone(&shared)));
        entries.collect()
    }

    /// Builds the map of entries in the order of their hashes, no key twice.
    fn with(entries: Shard<K, V>) -> Self {
        let len = entries.len();
        let count = (len / SHARD).max(1).next_power_of_two();
        let mut map = Self {
            shards: Arc::new(vec![]),
            len,
        };
        let mut shards: Vec<Shard<K, V>> = (0..count).map(|_| vec![]).collect();
        let bits = count.trailing_zeros();
        for entry in entries {
            let number = entry.0.checked_shr(64 - bits).unwrap_or(0);
            if let Some(shard) = usize::try_from(number).ok().and_then(|n| shards.get_mut(n)) {
                shard.push(entry);
            }
        }
        for shard in &mut shards {
            shard.shrink_to_fit();
        }
        map.shards = Arc::new(shards.into_iter().map(Arc::new).collect());
        map
    }
}

fn compare<'m, K: Eq, V>(
    now: &'m Shard<K, V>,
    before: &'m Shard<K, V>,
    is_same: &impl Fn(&V, &V) -> bool,
    changes: &mut Vec<Change<'m, K, V>>,
) {
    let (now, before): (Vec<_>, Vec<_>) = (now.iter().collect(), before.iter().collect());
    compare_all(&now, &before, is_same, changes);
}

/// Compares two lists of ascending hashes.
fn compare_all<'m, K: Eq, V>(
    now: &[&'m (u64, K, V)],
    before: &[&'m (u64, K, V)],
    is_same: &impl Fn(&V, &V) -> bool,
    changes: &mut Vec<Change<'m, K, V>>,
) {
    let same_hash = |list: &[&'m (u64, K, V)], hash: u64| list.partition_point(|entry| entry.0 <= hash);
    let (mut now, mut before) = (now, before);
    while let Some(hash) = now.first().into_iter().chain(before.first()).map(|e| e.0).min() {
        let (new, rest) = now.split_at(same_hash(now, hash));
        let (old, rest_before) = before.split_at(same_hash(before, hash));
        (now, before) = (rest, rest_before);
        for (_, key, value) in new {
            let earlier = old.iter().find(|(_, other, _)| other == key);
            let earlier = earlier.map(|(_, _, value)| value);
            if !earlier.is_some_and(|earlier| is_same(earlier, value)) {
                changes.push(Change {
                    key,
                    before: earlier,
                    after: Some(value),
                });
            }
        }
        let gone = old
            .iter()
            .filter(|(_, key, _)| !new.iter().any(|(_, other, _)| other == key));
        changes.extend(gone.map(|(_, key, value)| Change {
            key,
            before: Some(value),
            after: None,
        }));
    }
}

/// The same in every process. Whoever writes the configuration could make keys collide, which costs a longer search and
/// nothing else.
fn hash_of<Q: Hash + ?Sized>(key: &Q) -> u64 {
    // Of good quality in its upper bits, too, by which shards go.
    foldhash::quality::FixedState::default().hash_one(key)
}

/// Where a key is, or where it would go.
fn position<K: Borrow<Q>, V, Q: Eq + ?Sized>(
    shard: &Shard<K, V>,
    hash: u64,
    key: &Q,
) -> Result<usize, usize> {
    let first = shard.partition_point(|entry| entry.0 < hash);
    let same_hash = shard.iter().enumerate().skip(first);
    same_hash
        .take_while(|(_, entry)| entry.0 == hash)
        .find(|(_, entry)| entry.1.borrow() == key)
        .map(|(number, _)| number)
        .ok_or(first)
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self {
            shards: Arc::new(vec![Arc::new(vec![])]),
            len: 0,
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            len: self.len,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    /// Of several values of one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries = entries.into_iter();
        let mut entries: Shard<K, V> = entries.map(|(key, value)| (hash_of(&key), key, value)).collect();
        entries.reverse();
        entries.sort_by_key(|entry| entry.0);
        // Keys of one hash are as good as always one key; then its last value stands first.
        let mut unique: Shard<K, V> = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut same_hash = unique.iter().rev().take_while(|other| other.0 == entry.0);
            if !same_hash.any(|other| other.1 == entry.1) {
                unique.push(entry);
            }
        }
        Self::with(unique)
    }
}

impl<K: Hash + Eq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        if self.is_same(other) {
            return true;
        }
        if self.len != other.len {
            return false;
        }
        if self.shards.len() == other.shards.len() {
            let mut pairs = self.shards.iter().zip(&*other.shards);
            return pairs.all(|(own, theirs)| {
                let has = |(hash, key, value): &(u64, K, V)| {
                    let found = position(theirs, *hash, key).ok().and_then(|at| theirs.get(at));
                    found.is_some_and(|(_, _, other)| other == value)
                };
                Arc::ptr_eq(own, theirs) || (own.len() == theirs.len() && own.iter().all(has))
            });
        }
        self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Steps of a small fixed generator, so that the test is the same every time.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(seed), |n| {
            Some(
                n.wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407),
            )
        })
        .map(|n| n >> 33)
    }

    #[test]
    fn it_holds_what_a_hash_map_holds_through_any_changes() {
        let mut map = SharedMap::default();
        let mut reference = HashMap::new();
        for number in numbers(7).take(20_000) {
            let key = (number % 3_000).to_string();
            if number % 4 == 0 {
                assert_eq!(map.remove(key.as_str()), reference.remove(&key));
            } else {
                assert_eq!(map.insert(key.clone(), number), reference.insert(key, number));
            }
        }
        assert_eq!(map.len(), reference.len());
        assert!(
            reference
                .iter()
                .all(|(key, value)| map.get(key.as_str()) == Some(value))
        );
        let collected: SharedMap<_, _> = reference.into_iter().collect();
        assert_eq!(map, collected);
    }

    #[test]
    fn a_clone_stays_as_it_was_and_the_difference_is_what_changed() {
        let before: SharedMap<u64, u64> = (0..10_000).map(|n| (n, n)).collect();
        let mut after = before.clone();
        after.insert(5, 50);
        after.insert(20_000, 1);
        after.remove(&7);
        assert_eq!(
            (before.get(&5), before.get(&7), before.len()),
            (Some(&5), Some(&7), 10_000)
        );
        let mut changes: Vec<_> = after
            .changes_since(&before, |a, b| a == b)
            .into_iter()
            .map(|change| (*change.key, change.before.copied(), change.after.copied()))
            .collect();
        changes.sort_unstable();
        assert_eq!(
            changes,
            [
                (5, Some(5), Some(50)),
                (7, Some(7), None),
                (20_000, None, Some(1))
            ]
        );
        let shared = after.shards.iter().zip(&*before.shards);
        assert!(shared.filter(|(a, b)| !Arc::ptr_eq(a, b)).count() <= 3);
    }

    #[test]
    fn maps_with_other_numbers_of_shards_are_compared_too() {
        let small: SharedMap<u64, u64> = (0..10).map(|n| (n, n)).collect();
        let large: SharedMap<u64, u64> = (0..1_000).map(|n| (n, n)).collect();
        assert_eq!(large.changes_since(&small, |a, b| a == b).len(), 990);
        assert_ne!(small, large);
        let mut grown = small.clone();
        for n in 10..1_000 {
            grown.insert(n, n);
        }
        assert_eq!(grown, large);
    }

    #[test]
    fn of_one_key_the_last_value_counts() {
        let map: SharedMap<_, _> = [("a", 1), ("b", 2), ("a", 3)].into_iter().collect();
        assert_eq!((map.len(), map.get("a"), map.get("c")), (2, Some(&3), None));
    }
}
