//! Who has which index, written down for the next process.
//!
//! The connection table is handed on, and names workers and VIPs by index and generation. A process that gave the
//! indexes away by its own lights would send remembered flows to strangers; so it begins with its predecessor's.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use edge_common::maps as names;
use edge_common::tenant::{ENTRIES, FIRST_VIP, Tenant};

use crate::Error;
use crate::image::{Digest, Image, Indexes};
use crate::maps::Maps;

/// What the map holds, as it was written last.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    written: BTreeMap<u32, Tenant>,
}

impl Tenants {
    /// Writes down who has the indexes of an image.
    pub(crate) fn write(&mut self, maps: &mut Maps, image: &Image) -> Result<(), Error> {
        let mut wanted = entries(&image.pools.members, 0);
        wanted.extend(entries(&image.vip_indexes, FIRST_VIP));
        for (at, tenant) in wanted {
            if self.written.get(&at) != Some(&tenant) {
                maps.tenants
                    .set(at, tenant, 0)
                    .map_err(Error::map(names::TENANTS, "write"))?;
                self.written.insert(at, tenant);
            }
        }
        Ok(())
    }
}

/// What a predecessor wrote down: the indexes of workers, and those of VIPs.
pub(crate) fn read<M: Ord, V: Ord>(map: &Array<MapData, Tenant>) -> Result<(Indexes<M>, Indexes<V>), Error> {
    let mut tenants = Vec::new();
    for at in 0..ENTRIES {
        let tenant = map.get(&at, 0).map_err(Error::map(names::TENANTS, "read"))?;
        tenants.push(tenant);
    }
    let (workers, vips) = tenants.split_at(tenants.len().min(FIRST_VIP as usize));
    Ok((found(workers), found(vips)))
}

fn found<N: Ord>(tenants: &[Tenant]) -> Indexes<N> {
    let used = || (0..).zip(tenants).filter(|(_, tenant)| tenant.uses > 0);
    let owners = used().filter(|(_, tenant)| tenant.name != 0);
    Indexes::found(
        owners.map(|(index, tenant)| (tenant.name, index)).collect(),
        used().map(|(index, tenant)| (index, tenant.uses)).collect(),
    )
}

/// An element for each index that was ever given away, from `first` on.
fn entries<N: Ord + Digest>(indexes: &Indexes<N>, first: u32) -> BTreeMap<u32, Tenant> {
    let at = |index: u16| first + u32::from(index);
    let tenant = |uses| Tenant {
        uses,
        ..Tenant::default()
    };
    let mut entries: BTreeMap<_, _> = indexes
        .all_uses()
        .map(|(index, uses)| (at(index), tenant(uses)))
        .collect();
    for (name, index) in indexes.iter() {
        entries.entry(at(index)).or_insert(tenant(1)).name = name.digest();
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::image::indexes;

    type Name = Arc<str>;

    fn names(names: &[&str]) -> BTreeSet<Name> {
        names.iter().copied().map(Arc::from).collect()
    }

    fn next(old: &Indexes<Name>, of: &[&str]) -> Indexes<Name> {
        indexes(old, names(of), "names", 0..4).expect("they fit")
    }

    /// The indexes as the next process finds them.
    fn restarted(indexes: &Indexes<Name>) -> Indexes<Name> {
        let entries = entries(indexes, 0);
        let tenants: Vec<_> = (0..4)
            .map(|at| entries.get(&at).copied().unwrap_or_default())
            .collect();
        found(&tenants)
    }

    fn index(indexes: &Indexes<Name>, name: &str) -> (u16, u16) {
        let index = indexes.get(&Arc::from(name)).expect("it has one");
        (index, indexes.uses(index))
    }

    #[test]
    fn a_restart_gives_everybody_the_index_and_the_generation_that_they_had() {
        let first = next(&Indexes::default(), &["b", "c"]);
        let second = next(&restarted(&first), &["a", "b", "c"]);
        for name in ["b", "c"] {
            assert_eq!(index(&second, name), index(&first, name), "{name}");
        }
        assert_eq!(index(&second, "a"), (2, 0), "one that nobody had");
    }

    #[test]
    fn an_index_whose_owner_left_is_given_away_last_and_in_another_generation() {
        let first = next(&Indexes::default(), &["a", "b", "c"]);
        let second = next(&restarted(&first), &["b", "c", "d"]);
        assert_eq!(index(&second, "d"), (3, 0));
        let third = next(&restarted(&second), &["b", "c", "d", "e"]);
        assert_eq!(index(&third, "e"), (0, 1), "it was a's");
        let fourth = next(&restarted(&third), &["b", "c", "d", "f"]);
        assert_eq!(index(&fourth, "f"), (0, 2), "it was e's");
    }
}
