//! A map of bounded size that forgets what has not been used for longest.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Two generations of entries. When the young one is full, the old one is forgotten and the young one takes its
/// place; an entry that is used moves to the young one. So an entry outlives at least `capacity / 2` others that
/// were used after it, at the cost of two look-ups and without a list that every use would have to relink.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// At most `capacity` entries (at least 2).
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
        }
    }

    /// Runs `act` on the entry of `key`, which `make` makes when there is none.
    pub(crate) fn with<Q, R>(&mut self, key: &Q, make: impl FnOnce() -> V, act: impl FnOnce(&mut V) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(value) = self.young.get_mut(key) {
            return act(value);
        }
        let mut value = self.old.remove(key).unwrap_or_else(make);
        let result = act(&mut value);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_owned(), value);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(map: &mut Generations<u32, u32>, key: u32) -> u32 {
        map.with(
            &key,
            || 0,
            |uses| {
                *uses += 1;
                *uses
            },
        )
    }

    #[test]
    fn the_capacity_is_never_exceeded() {
        let mut map = Generations::new(10);
        for key in 0..1000 {
            touch(&mut map, key);
            assert!(map.young.len() + map.old.len() <= 10);
        }
    }

    #[test]
    fn an_entry_in_use_survives_any_number_of_others() {
        let mut map = Generations::new(10);
        for key in 1..=1000 {
            assert_eq!(touch(&mut map, 0), key);
            touch(&mut map, key);
        }
    }

    #[test]
    fn an_entry_out_of_use_is_forgotten() {
        let mut map = Generations::new(10);
        touch(&mut map, 0);
        for key in 1..=10 {
            touch(&mut map, key);
        }
        assert_eq!(touch(&mut map, 0), 1, "it began anew");
    }
}
