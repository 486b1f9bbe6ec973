//! Who counts for what: the things that series are about, and those of them that nobody counts for any more.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use foldhash::fast::FixedState;

/// Things by key, and how many count for each. One that nobody counts for any more is among the gone until it is removed.
#[derive(Debug)]
pub(super) struct Counting<K, T> {
    known: HashMap<K, Entry<T>, FixedState>,
    /// The gone, by when they went.
    gone: BTreeMap<u64, K>,
    /// How often one has gone.
    departures: u64,
}

#[derive(Debug, Default)]
struct Entry<T> {
    users: usize,
    /// When it went, if it did.
    gone: Option<u64>,
    thing: T,
}

impl<K, T> Default for Counting<K, T> {
    fn default() -> Self {
        Self {
            known: HashMap::default(),
            gone: BTreeMap::new(),
            departures: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, T: Default> Counting<K, T> {
    /// How many there are, with the gone.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.known.get_mut(key).map(|entry| &mut entry.thing)
    }

    /// One more counts for a thing. Answers the key as it is kept, and the thing if it was among the gone.
    pub(super) fn enter(&mut self, key: K) -> (K, Option<&T>) {
        let key = match self.known.get_key_value(&key) {
            Some((kept, _)) => kept.clone(),
            None => key,
        };
        let entry = self.known.entry(key.clone()).or_default();
        entry.users += 1;
        let went = entry.gone.take();
        if let Some(went) = went {
            self.gone.remove(&went);
        }
        (key, went.map(|_| &entry.thing))
    }

    /// One less counts for a thing. Answers the thing if it is among the gone now.
    pub(super) fn leave(&mut self, key: &K) -> Option<&T> {
        let entry = self.known.get_mut(key)?;
        entry.users = entry.users.saturating_sub(1);
        if entry.users > 0 || entry.gone.is_some() {
            return None;
        }
        self.departures += 1;
        entry.gone = Some(self.departures);
        self.gone.insert(self.departures, key.clone());
        Some(&entry.thing)
    }

    /// Removes one of the gone, or none.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(went) = self.known.get(key).and_then(|entry| entry.gone) {
            self.gone.remove(&went);
            self.known.remove(key);
        }
    }

    /// Removes the one that is gone for longest.
    pub(super) fn remove_oldest(&mut self) -> Option<(K, T)> {
        let (_, key) = self.gone.pop_first()?;
        let entry = self.known.remove(&key)?;
        Some((key, entry.thing))
    }

    #[cfg(test)]
    pub(super) fn gone(&self) -> usize {
        self.gone.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gone_is_removed_first_and_who_is_back_is_not() {
        let mut counting = Counting::<&str, u32>::default();
        for key in ["a", "b", "c", "a"] {
            assert_eq!(counting.enter(key), (key, None));
        }
        *counting.get_mut(&"b").unwrap() = 7;
        assert_eq!(counting.leave(&"a"), None);
        assert_eq!(counting.leave(&"nobody"), None);
        for key in ["b", "a", "c"] {
            assert!(counting.leave(&key).is_some(), "{key}");
            assert_eq!(counting.leave(&key), None, "{key}, once more");
        }
        assert_eq!((counting.len(), counting.gone()), (3, 3));
        assert_eq!(counting.enter("b"), ("b", Some(&7)));
        counting.remove(&"b");
        assert!(counting.contains(&"b"), "it is not gone");
        assert_eq!(counting.remove_oldest(), Some(("a", 0)));
        counting.remove(&"c");
        assert_eq!((counting.len(), counting.remove_oldest()), (1, None));
        // What has left again is the last to go.
        counting.enter("d");
        assert_eq!(counting.leave(&"d"), Some(&0));
        assert_eq!(counting.leave(&"b"), Some(&7));
        assert_eq!(counting.remove_oldest(), Some(("d", 0)));
    }
}
