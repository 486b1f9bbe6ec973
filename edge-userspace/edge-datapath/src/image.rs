//! What the maps should hold for a configuration, computed without touching them.

mod indexes;
mod names;
mod settings;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use edge_common::maps::{MAX_LISTENERS, MAX_LOCAL_WORKERS, MAX_VIPS};
use edge_common::prefix::Prefix;
use edge_common::{Address, Config, decap, vip};
use edge_model::{DataPathConfig, ForwardMode, Member, Unserved, Vip, Worker, WorkerId};

pub(crate) use self::indexes::indexes;
pub use self::indexes::{Digest, Indexes};
use self::names::{ListenerName, VipName, listener_of, name};
pub use self::names::{MemberId, VipId};
pub use self::sockets::{SocketId, WorkerSocket};
use crate::pools::Pools;
use crate::{Error, sources, tunnels};

/// Contents of the maps, and the routes that go with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Settings, without the bit for penalties, which come and go by themselves.
    pub config: Config,
    /// Services and marker entries.
    pub vips: BTreeMap<vip::Key, vip::Entry>,
    /// Index of each VIP. A VIP keeps its index, and its counters, from one configuration to the next.
    pub vip_indexes: Indexes<VipName>,
    /// Row of the socket map of each listener.
    pub listeners: Indexes<ListenerName>,
    /// Virtual prefixes with their free bits.
    pub vip_prefixes: BTreeMap<vip::PrefixKey, u32>,
    /// Workers of this node.
    pub workers: BTreeSet<WorkerId>,
    /// Workers of this node and of pools, and who claims which share of the Maglev tables.
    pub pools: Pools,
    /// Sockets by their index in the map.
    pub sockets: BTreeMap<u32, SocketId>,
    /// The allow and the deny list. They may be long, so they are shared.
    pub sources: Arc<BTreeMap<Prefix, u32>>,
    /// UDP ports that datagrams are refused from.
    pub reflection_ports: BTreeSet<u16>,
    /// Who may send through a tunnel.
    pub tunnel_peers: decap::Trusted,
    /// Addresses for which a local route must exist.
    pub routes: BTreeSet<IpAddr>,
}

impl Image {
    /// The image of a configuration, with this one's indexes kept where they can be. `own` are the addresses that the
    /// node has on its interfaces.
    ///
    /// # Errors
    /// The configuration does not fit the maps, a VIP or worker is there twice, or a descriptor is no socket.
    pub fn next(
        &self,
        desired: &DataPathConfig,
        sockets: &[WorkerSocket<'_>],
        with_routes: bool,
        own: &BTreeSet<IpAddr>,
    ) -> Result<Self, Error> {
        let vip_indexes = vip_indexes(&self.vip_indexes, &desired.vips)?;
        let listeners = listeners(&self.listeners, desired, sockets, own)?;
        let workers = workers(&desired.workers)?;
        let pools = self.pools.next(desired, own)?;
        let sources = sources::entries(&desired.sources)?;
        let mut next = Self {
            listeners,
            workers,
            pools,
            config: settings::config(desired, &sources)?,
            sources: Arc::new(sources),
            reflection_ports: desired.reflection_ports.iter().copied().collect(),
            tunnel_peers: tunnels::peers(desired)?,
            ..Self::default()
        };
        for vip in &desired.vips {
            next.add_vip(vip, &vip_indexes, desired, own)?;
        }
        for address in tunnels::plain_addresses(desired) {
            let marker = vip::Key::marker(Address::from(address));
            next.vips
                .entry(marker)
                .or_insert(vip::Entry::marker(vip::Entry::SHARED));
        }
        next.vip_indexes = vip_indexes;
        next.sockets = sockets::socket_ids(&next.listeners, sockets)?;
        if with_routes {
            let is_local = |vip: &&Vip| vip.free_bits == 0 && has_local_worker(vip, desired, own);
            next.routes = desired
                .vips
                .iter()
                .filter(is_local)
                .map(|vip| vip.address)
                .collect();
        }
        Ok(next)
    }

    /// Adds the entries of a VIP.
    fn add_vip(
        &mut self,
        vip: &Vip,
        indexes: &Indexes<VipName>,
        desired: &DataPathConfig,
        own: &BTreeSet<IpAddr>,
    ) -> Result<(), Error> {
        let index = indexes.get(&name(vip)).unwrap_or_default();
        let listener = listener_of(vip);
        let address = Address::from(vip.address);
        let key = vip::Key::service(address, vip.port, vip.protocol.number()).on_prefix(vip.free_bits);
        let pool = match vip.pool {
            None => vip::LOCAL_POOL,
            Some(pool) => {
                let pool = desired.pools.get(usize::from(pool));
                let index = pool.and_then(|pool| self.pools.indexes.get(&pool.name));
                index.ok_or(Error::NoPool { vip: *vip })?
            }
        };
        let entry = vip::Entry {
            vip: index,
            listener: self.listeners.get(&listener).unwrap_or_default(),
            pool,
            tag: vip::tag(index, indexes.uses(index)),
            flags: settings::flags(vip, desired),
        };
        self.vips.insert(key, entry);
        let mut shared = 0;
        if own.contains(&vip.address) {
            shared |= vip::Entry::SHARED;
        }
        if vip.unserved == Unserved::Pass {
            shared |= vip::Entry::PASSES_UNSERVED;
        }
        if vip.pool.is_some() {
            shared |= vip::Entry::FORWARDS;
        }
        if has_local_worker(vip, desired, own) {
            shared |= vip::Entry::IS_HERE;
        }
        let marker = vip::Key::marker(address).on_prefix(vip.free_bits);
        self.vips.entry(marker).or_insert(vip::Entry::marker(0)).flags |= shared;
        if vip.free_bits > 0 {
            let (len, free_bits) = (128 - u32::from(vip.free_bits), u32::from(vip.free_bits));
            let address = marker.address;
            self.vip_prefixes
                .insert(vip::PrefixKey { len, address }, free_bits);
        }
        Ok(())
    }

    /// The VIP that has an index.
    #[must_use]
    pub fn vip_at(&self, index: u32) -> Option<VipId> {
        let name = self.vip_indexes.name_at(u16::try_from(index).ok()?)?;
        let &(address, free_bits, port, protocol) = name;
        Some(VipId {
            address,
            free_bits,
            port,
            protocol,
        })
    }

    /// What stands for a VIP in the connection table; `None` if nobody has the index.
    #[must_use]
    pub fn vip_tag(&self, index: u16) -> Option<u16> {
        self.vip_indexes.name_at(index)?;
        Some(vip::tag(index, self.vip_indexes.uses(index)))
    }

    /// A pool's worker as people call it: pool, name and address. `None` for workers of this node.
    #[must_use]
    pub fn member(&self, worker: WorkerId) -> Option<MemberId> {
        self.pools.member_at(worker.0).cloned().map(MemberId::from)
    }
}

/// Whether packets to a VIP go up this node's stack, be it some.
fn has_local_worker(vip: &Vip, desired: &DataPathConfig, own: &BTreeSet<IpAddr>) -> bool {
    let Some(pool) = vip.pool else { return true };
    let members = desired.pools.get(usize::from(pool)).map(|pool| &pool.members);
    let is_here = |member: &Member| member.mode == ForwardMode::Local || own.contains(&member.address);
    members.is_some_and(|members| members.iter().any(is_here))
}

fn vip_indexes(old: &Indexes<VipName>, vips: &[Vip]) -> Result<Indexes<VipName>, Error> {
    let mut names = BTreeSet::new();
    if let Some(&vip) = vips.iter().find(|vip| !names.insert(name(vip))) {
        return Err(Error::DuplicateVip { vip });
    }
    indexes(old, names, "VIPs", 0..MAX_VIPS as u16)
}

fn listeners(
    old: &Indexes<ListenerName>,
    desired: &DataPathConfig,
    sockets: &[WorkerSocket<'_>],
    own: &BTreeSet<IpAddr>,
) -> Result<Indexes<ListenerName>, Error> {
    let here = desired
        .vips
        .iter()
        .filter(|vip| has_local_worker(vip, desired, own));
    let of_vips = here.map(listener_of);
    let of_sockets = sockets.iter().map(WorkerSocket::listener);
    indexes(
        old,
        of_vips.chain(of_sockets).collect(),
        "listener ports",
        0..MAX_LISTENERS as u16,
    )
}

fn workers(workers: &[Worker]) -> Result<BTreeSet<WorkerId>, Error> {
    let mut set = BTreeSet::new();
    for worker in workers {
        let is_new = set.insert(worker.id);
        if !is_new || u32::from(worker.id.0) >= MAX_LOCAL_WORKERS {
            return Err(Error::BadWorker {
                worker: worker.id,
                limit: MAX_LOCAL_WORKERS - 1,
            });
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use edge_model::{Protocol, WorkerKind};

    use super::*;

    fn vip(port: u16) -> Vip {
        Vip::local(IpAddr::from([192, 0, 2, 80]), port, Protocol::Tcp, port + 8000)
    }

    fn worker(id: u16) -> Worker {
        Worker {
            id: WorkerId(id),
            weight: 1,
            kind: WorkerKind::Local,
        }
    }

    fn next(image: &Image, vips: &[Vip], workers: &[Worker]) -> Result<Image, Error> {
        let desired = DataPathConfig {
            vips: vips.to_vec(),
            workers: workers.to_vec(),
            ..Default::default()
        };
        image.next(&desired, &[], true, &BTreeSet::new())
    }

    fn indexes_of(image: &Image, ports: &[u16]) -> Vec<u16> {
        let address = IpAddr::from([192, 0, 2, 80]);
        ports
            .iter()
            .map(|&port| {
                image
                    .vip_indexes
                    .get(&(address, 0, port, Protocol::Tcp))
                    .expect("has one")
            })
            .collect()
    }

    #[test]
    fn a_vip_keeps_its_index_and_a_new_one_gets_an_unused_one() {
        let first = next(&Image::default(), &[vip(1), vip(2), vip(3)], &[]).expect("fits");
        assert_eq!(indexes_of(&first, &[1, 2, 3]), [0, 1, 2]);
        let second = next(&first, &[vip(4), vip(3), vip(1)], &[]).expect("fits");
        assert_eq!(indexes_of(&second, &[1, 3, 4]), [0, 2, 3]);
        let third = next(&second, &[vip(5), vip(4)], &[]).expect("fits");
        assert_eq!(indexes_of(&third, &[4, 5]), [3, 1]);
    }

    #[test]
    fn every_address_has_one_marker_one_route_and_its_bit_in_the_filter() {
        let image = next(&Image::default(), &[vip(80), vip(443)], &[]).expect("fits");
        let markers = image
            .vips
            .values()
            .filter(|&&entry| entry == vip::Entry::marker(vip::Entry::IS_HERE))
            .count();
        assert_eq!((image.vips.len(), markers, image.routes.len()), (3, 1, 1));
        assert!(image.config.vips.may_contain(&Address::from(vip(80).address)));
    }

    #[test]
    fn an_address_that_an_interface_has_too_is_marked_as_shared() {
        let desired = DataPathConfig {
            vips: vec![vip(80)],
            ..Default::default()
        };
        let own = BTreeSet::from([vip(80).address]);
        let image = Image::default().next(&desired, &[], true, &own).expect("fits");
        let marker = vip::Key::marker(Address::from(vip(80).address));
        assert_eq!(
            image.vips.get(&marker),
            Some(&vip::Entry::marker(vip::Entry::SHARED | vip::Entry::IS_HERE))
        );
    }

    #[test]
    fn what_does_not_fit_the_maps_is_refused() {
        let too_many: Vec<Vip> = (0..=MAX_VIPS as u16).map(vip).collect();
        let rows: [(&[Vip], &[Worker], &str); 4] = [
            (&[vip(80), vip(80)], &[], "VIP 192.0.2.80:80/Tcp is there twice"),
            (
                &too_many,
                &[],
                "1025 VIPs are too many: the data path has room for 1024",
            ),
            (&[], &[worker(1), worker(1)], "worker 1: its index is used twice"),
            (
                &[],
                &[worker(1024)],
                "worker 1024: its index is used twice or beyond the last possible, 1023",
            ),
        ];
        for (vips, workers, message) in rows {
            let error = next(&Image::default(), vips, workers)
                .expect_err(message)
                .to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
