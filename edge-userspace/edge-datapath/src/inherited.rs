//! What a process takes over of its predecessor's view of the workers: who had the slots of the Maglev tables, who was down,
//! and which key flows were hashed with.
//!
//! A slot's previous owner may still have connections of it, so a restart must not forget it. The predecessor's tables and
//! workers are pinned; but its indexes are its own, so that a worker is known again by what it is.

use std::collections::{BTreeMap, HashMap, HashSet};

use aya::Pod;
use aya::maps::{Array, Map, MapData, MapInfo};
use edge_common::maglev::{NO_WORKER, Slot, Table};
use edge_common::worker::{ABSENT, DOWN, Entry};
use edge_common::{Config, HashKey, maps as names};

use crate::Error;
use crate::maglev::Share;
use crate::pins::Pins;

/// The predecessor's tables of pools.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// What each worker was, and its pool, by its index.
    workers: HashMap<u16, (u64, u16)>,
    /// What those that were down are.
    down: HashSet<u64>,
    /// By pool.
    tables: BTreeMap<u16, Box<Table>>,
}

impl Inherited {
    /// Reads what a predecessor pinned, if one did.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn read(pins: &Pins) -> Result<Self, Error> {
        let (Some(workers), Some(tables)) = (
            open::<Entry>(pins, names::WORKERS, names::MAX_WORKERS)?,
            open::<Table>(pins, names::MAGLEV, names::MAX_POOLS)?,
        ) else {
            return Ok(Self::default());
        };
        let mut inherited = Self::default();
        // Workers of this node are known by their number.
        for index in names::MAX_LOCAL_WORKERS..names::MAX_WORKERS {
            let entry = workers
                .get(&index, 0)
                .map_err(Error::map(names::WORKERS, "read the pinned map"))?;
            if entry.state != ABSENT {
                inherited.add(index as u16, &entry);
            }
        }
        let pools: Vec<u16> = inherited.workers.values().map(|&(_, pool)| pool).collect();
        for pool in pools {
            if let std::collections::btree_map::Entry::Vacant(place) = inherited.tables.entry(pool) {
                let table = tables
                    .get(&u32::from(pool), 0)
                    .map_err(Error::map(names::MAGLEV, "read the pinned map"))?;
                place.insert(Box::new(table));
            }
        }
        Ok(inherited)
    }

    fn add(&mut self, index: u16, entry: &Entry) {
        self.workers.insert(index, (entry.identity, entry.pool));
        if entry.state == DOWN {
            self.down.insert(entry.identity);
        }
    }

    /// Whether a worker was down.
    pub(crate) fn was_down(&self, identity: u64) -> bool {
        self.down.contains(&identity)
    }

    /// The table that the pool of these workers had, with their present indexes; `None` if none of them had any.
    pub(crate) fn table(&self, claims: &[Share], workers: &BTreeMap<u16, Entry>) -> Option<Box<Table>> {
        let now: HashMap<u64, u16> = claims
            .iter()
            .filter_map(|share| Some((workers.get(&share.worker)?.identity, share.worker)))
            .collect();
        let then = |(_, (identity, _)): &(&u16, &(u64, u16))| now.contains_key(identity);
        let (_, &(_, pool)) = self.workers.iter().find(then)?;
        let translated = |index: u16| {
            let worker = self
                .workers
                .get(&index)
                .and_then(|(identity, _)| now.get(identity));
            worker.copied().unwrap_or(NO_WORKER)
        };
        let mut table = self.tables.get(&pool)?.clone();
        for slot in &mut table.slots {
            *slot = Slot {
                owner: translated(slot.owner),
                previous: translated(slot.previous),
            };
        }
        Some(table)
    }
}

/// The settings that the predecessor had.
///
/// # Errors
/// The map cannot be read.
pub(crate) fn config(pins: &Pins) -> Result<Option<Config>, Error> {
    let Some(config) = open::<Config>(pins, names::CONFIG, 1)? else {
        return Ok(None);
    };
    let config = config
        .get(&0, 0)
        .map_err(Error::map(names::CONFIG, "read the pinned map"))?;
    Ok(config.has(Config::IS_CONFIGURED).then_some(config))
}

/// The key that the predecessor hashed flows with. Remembered flows are found in the connection table by it, and all others
/// by their slots, so with another key most connections would go to workers that do not have them.
///
/// # Errors
/// As [`config`].
pub(crate) fn hash_key(pins: &Pins) -> Result<Option<HashKey>, Error> {
    Ok(config(pins)?.map(|config| config.hash))
}

/// The predecessor's map of a name. One of another shape is none: the library would read its values as what they are not.
fn open<V: Pod>(pins: &Pins, name: &'static str, entries: u32) -> Result<Option<Array<MapData, V>>, Error> {
    let file = pins.map(name);
    if !file.exists() {
        return Ok(None);
    }
    let failed = Error::map(name, "open the pinned map");
    let info = MapInfo::from_pin(&file).map_err(failed)?;
    if (info.value_size() as usize, info.max_entries()) != (size_of::<V>(), entries) {
        return Ok(None);
    }
    let map = MapData::from_pin(&file).map_err(Error::map(name, "open the pinned map"))?;
    let map = Array::try_from(Map::Array(map)).map_err(Error::map(name, "open the pinned map"))?;
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maglev;

    fn entry(identity: u64, pool: u16) -> Entry {
        Entry {
            identity,
            pool,
            ..Entry::default()
        }
    }

    #[test]
    fn slots_keep_their_owners_whatever_indexes_those_get() {
        // Before: pool 7 with workers 100, 101 and 102, of which 102 drains.
        let mut before: Vec<Share> = (0..3)
            .map(|order| Share {
                order,
                ..Share::new(100 + order, 1)
            })
            .collect();
        before[2].drains = true;
        let table = maglev::successor(&before, None);
        let mut inherited = Inherited::default();
        for (index, identity) in [(100, 11), (101, 12), (102, 13)] {
            inherited.add(index, &entry(identity, 7));
        }
        inherited.tables.insert(7, table.clone());
        // Now: the same in other places, without the second.
        let workers = BTreeMap::from([(200, entry(13, 1)), (201, entry(11, 1)), (300, entry(99, 2))]);
        let claims = [Share::new(200, 1), Share::new(201, 1)];
        let translated = inherited.table(&claims, &workers).expect("the pool is known");
        let new = |index: u16| match index {
            100 => 201,
            102 => 200,
            _ => NO_WORKER,
        };
        for (slot, old) in translated.slots.iter().zip(&table.slots) {
            assert_eq!((slot.owner, slot.previous), (new(old.owner), new(old.previous)));
        }
        assert!(translated.slots.iter().any(|slot| slot.previous == 200));
        assert!(inherited.table(&[Share::new(300, 1)], &workers).is_none());
    }
}
