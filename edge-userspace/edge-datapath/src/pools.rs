//! Pools and their workers as the maps hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use edge_common::maps::{MAX_LOCAL_WORKERS, MAX_POOLS, MAX_WORKERS};
use edge_common::{Address, tenant, tunnel, vip, worker};
use edge_model::{DataPathConfig, ForwardMode, Member, MemberState, Tunnel};

use crate::Error;
use crate::image::{Digest, Indexes, indexes};
use crate::maglev::Share;

/// A worker of a pool by what makes it another: its pool, name and address, and how packets get there.
pub(crate) type MemberName = (Arc<str>, Arc<str>, IpAddr, ForwardMode);

impl Digest for MemberName {
    fn digest(&self) -> u64 {
        let (pool, name, address, mode) = self;
        let words = Address::from(*address).0.map(u32::to_ne_bytes);
        let mode = match mode {
            ForwardMode::Local => [worker::LOCAL, 0, 0],
            ForwardMode::Ipip => [worker::IPIP, 0, 0],
            ForwardMode::Gue { port } => {
                let [high, low] = port.to_be_bytes();
                [worker::GUE, high, low]
            }
            ForwardMode::L2 => [worker::L2, 0, 0],
        };
        tenant::digest([pool.as_bytes(), name.as_bytes(), words.as_flattened(), &mode])
    }
}

/// A pool by its name.
impl Digest for Arc<str> {
    fn digest(&self) -> u64 {
        tenant::digest([self.as_bytes()])
    }
}

/// What the maps hold of the pools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pools {
    /// Index of each pool. That of this node's gateway workers has none here.
    pub(crate) indexes: Indexes<Arc<str>>,
    /// Index of each pool's workers.
    pub(crate) members: Indexes<MemberName>,
    /// Contents of `WORKERS`.
    pub(crate) workers: BTreeMap<u16, worker::Entry>,
    /// Claims to the slots of each pool's Maglev table.
    pub(crate) claims: BTreeMap<u16, Vec<Share>>,
}

impl Pools {
    /// The pools of a configuration, with these ones' indexes kept where they can be. `own` are the addresses that the
    /// node has on its interfaces: a worker at one of them is this node.
    pub(crate) fn next(&self, desired: &DataPathConfig, own: &BTreeSet<IpAddr>) -> Result<Self, Error> {
        let names = desired.pools.iter().map(|pool| Arc::clone(&pool.name)).collect();
        // Index 0 is the pool of this node's gateway workers.
        let pool_indexes = indexes(&self.indexes, names, "pools", 1..MAX_POOLS as u16)?;
        let of_pool = |pool: &edge_model::Pool| {
            let name = Arc::clone(&pool.name);
            let member = move |member: &Member| member_name(&name, member);
            pool.members.iter().map(member).collect::<Vec<_>>()
        };
        let names = desired.pools.iter().flat_map(of_pool).collect();
        let range = MAX_LOCAL_WORKERS as u16..MAX_WORKERS as u16;
        let mut next = Self {
            members: indexes(&self.members, names, "workers of pools", range)?,
            indexes: pool_indexes,
            ..Self::default()
        };
        next.add_local(desired);
        for pool in &desired.pools {
            let index = next.indexes.get(&pool.name).unwrap_or_default();
            let heaviest = pool.members.iter().map(|member| member.weight).max();
            let usual = heaviest.unwrap_or_default().max(1);
            let mut claims = Vec::new();
            for (order, member) in pool.numbered() {
                let name = member_name(&pool.name, member);
                let worker = next.members.get(&name).unwrap_or_default();
                let entry = worker::Entry {
                    identity: name.digest(),
                    ..entry(
                        &desired.tunnel,
                        member,
                        own,
                        next.members.uses(worker),
                        worker,
                        index,
                    )
                };
                next.workers.insert(worker, entry);
                claims.push(Share {
                    worker,
                    order,
                    weight: match entry.state {
                        worker::DOWN => 0,
                        // It takes no slot, but is the previous owner of those that it had. Its weight before is not told;
                        // where all have the same, this is it.
                        worker::DRAINING if member.weight == 0 => usual,
                        _ => member.weight,
                    },
                    drains: entry.state == worker::DRAINING,
                });
            }
            next.claims.insert(index, claims);
        }
        Ok(next)
    }

    fn add_local(&mut self, desired: &DataPathConfig) {
        let mut claims = Vec::new();
        for local in &desired.workers {
            let entry = worker::Entry {
                mode: worker::LOCAL,
                state: if local.weight > 0 {
                    worker::ACTIVE
                } else {
                    worker::DRAINING
                },
                owner: worker::owner(local.id.0, 0),
                pool: vip::LOCAL_POOL,
                ..worker::Entry::default()
            };
            self.workers.insert(local.id.0, entry);
            claims.push(Share::new(local.id.0, local.weight));
        }
        self.claims.insert(vip::LOCAL_POOL, claims);
    }

    /// The pool's worker that has an index.
    pub(crate) fn member_at(&self, index: u16) -> Option<&MemberName> {
        self.members.name_at(index)
    }
}

/// What makes a worker of a pool another than the rest.
pub(crate) fn member_name(pool: &Arc<str>, member: &Member) -> MemberName {
    (
        Arc::clone(pool),
        Arc::clone(&member.name),
        member.address,
        member.mode,
    )
}

fn entry(
    settings: &Tunnel,
    member: &Member,
    own: &BTreeSet<IpAddr>,
    uses: u16,
    index: u16,
    pool: u16,
) -> worker::Entry {
    let address = Address::from(member.address);
    let is_here = own.contains(&member.address);
    let (mode, port) = match member.mode {
        _ if is_here => (worker::LOCAL, 0),
        ForwardMode::Local => (worker::LOCAL, 0),
        ForwardMode::Ipip => (worker::IPIP, 0),
        ForwardMode::Gue { port } => (worker::GUE, port),
        ForwardMode::L2 => (worker::L2, 0),
    };
    let state = match member.state {
        MemberState::Down => worker::DOWN,
        MemberState::Draining => worker::DRAINING,
        MemberState::Active if member.weight == 0 => worker::DRAINING,
        MemberState::Active => worker::ACTIVE,
    };
    // Only a tunnel's packets can leave by a common gateway.
    let gateway = settings.next_hop.filter(|_| mode != worker::L2);
    worker::Entry {
        address,
        mode,
        state,
        owner: worker::owner(index, uses),
        port,
        mtu: settings.mtu,
        next_hop: member.next_hop.or(gateway).unwrap_or_default(),
        header_sum: tunnel::header_sum(address),
        pool,
        ..worker::Entry::default()
    }
}

#[cfg(test)]
mod tests {
    use edge_common::maglev::{SLOTS, Table};
    use edge_model::Pool;

    use super::*;
    use crate::maglev;

    fn config(hosts: &[u8], has_numbers: bool) -> DataPathConfig {
        let member = |&host: &u8| Member {
            name: format!("w{host}").into(),
            number: has_numbers.then_some(host.into()),
            address: IpAddr::from([10, 0, 0, host]),
            mode: ForwardMode::Ipip,
            weight: 1,
            state: MemberState::Active,
            next_hop: None,
        };
        DataPathConfig {
            pools: vec![Pool {
                name: "web".into(),
                members: hosts.iter().map(member).collect(),
            }],
            ..DataPathConfig::default()
        }
    }

    fn next(pools: &Pools, config: &DataPathConfig) -> (Pools, Box<Table>) {
        let next = pools.next(config, &BTreeSet::new()).expect("it fits");
        let claims = &next.claims[&1];
        let table = maglev::successor(claims, None);
        (next, table)
    }

    #[test]
    fn with_numbers_a_worker_that_leaves_the_list_disturbs_hardly_any_slot_of_the_others() {
        for (count, most) in [(8, 0.18), (64, 0.49)] {
            let hosts: Vec<u8> = (0..count).collect();
            for leaver in hosts.iter().copied() {
                let left: Vec<u8> = hosts.iter().copied().filter(|&host| host != leaver).collect();
                let (before, old) = next(&Pools::default(), &config(&hosts, true));
                let (after, new) = next(&before, &config(&left, true));
                let gone = before
                    .members
                    .iter()
                    .find(|(name, _)| *name.1 == *format!("w{leaver}"));
                let (_, gone) = gone.expect("it was there");
                let moved = old.slots.iter().zip(&new.slots);
                let moved = moved.filter(|(old, new)| old.owner != gone && old.owner != new.owner);
                let moved = moved.count() as f64 * 100.0 / SLOTS as f64;
                assert!(moved <= most, "{leaver} of {count}: {moved} %");
                // The order of the list does not count.
                let reversed: Vec<u8> = left.into_iter().rev().collect();
                assert!(next(&after, &config(&reversed, true)).1 == new);
            }
        }
    }

    #[test]
    fn numbers_that_are_places_and_numbers_that_are_given_come_to_the_same() {
        let hosts: Vec<u8> = (0..8).collect();
        let (pools, given) = next(&Pools::default(), &config(&hosts, true));
        let (_, places) = next(&pools, &config(&hosts, false));
        assert!(given == places);
    }
}
