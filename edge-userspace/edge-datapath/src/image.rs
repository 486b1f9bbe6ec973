//! What the maps should hold for a configuration, computed without touching them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use edge_common::maps::{MAX_LISTENERS, MAX_LOCAL_WORKERS, MAX_VIPS, socket_index};
use edge_common::prefix::Prefix;
use edge_common::{Address, Config, HashKey, decap, flood, vip};
use edge_model::{DataPathConfig, FloodLimits, Protocol, TokenRate, Vip, Worker, WorkerId};

use crate::maglev::Share;
use crate::{Error, sources, syncookies, sys, tunnels};

/// A listening socket of a worker, for socket selection.
///
/// It must listen (TCP) or be bound (UDP), on any local address that takes the VIP's family: `[::]` for both.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSocket<'fd> {
    /// The worker that accepts on it.
    pub worker: WorkerId,
    /// Port it is bound to: [`Vip::listener_port`] of the VIPs it serves.
    pub port: u16,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// The socket. It is looked at during the call only; the kernel forgets it when it is closed.
    pub fd: BorrowedFd<'fd>,
}

/// What of a VIP counts as its identity: the listener's port may change.
type VipName = (IpAddr, u16, Protocol);

/// A port that workers listen on.
type ListenerName = (u16, Protocol);

/// A socket's place and identity in the socket map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketId {
    /// The worker.
    pub worker: WorkerId,
    /// Port that the socket is bound to.
    pub port: u16,
    /// The kernel's number for the socket (SO_COOKIE).
    pub cookie: u64,
}

/// Contents of the maps, and the routes that go with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Settings, without the bit for penalties, which come and go by themselves.
    pub config: Config,
    /// Services and marker entries.
    pub vips: BTreeMap<vip::Key, vip::Entry>,
    /// Index of each VIP. A VIP keeps its index, and its counters, from one configuration to the next.
    pub vip_indexes: BTreeMap<VipName, u16>,
    /// Row of the socket map of each listener.
    pub listeners: BTreeMap<ListenerName, u16>,
    /// Workers and weights, from which the Maglev table is built.
    pub workers: BTreeMap<WorkerId, u32>,
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
        let listeners = listeners(&self.listeners, desired, sockets)?;
        let workers = workers(&desired.workers)?;
        let sources = sources::entries(&desired.sources)?;
        let mut next = Self {
            listeners,
            workers,
            config: config(desired, &sources)?,
            sources: Arc::new(sources),
            reflection_ports: desired.reflection_ports.iter().copied().collect(),
            tunnel_peers: tunnels::peers(desired)?,
            ..Self::default()
        };
        for vip in &desired.vips {
            let index = vip_indexes.get(&name(vip)).copied().unwrap_or_default();
            let listener = next
                .listeners
                .get(&(vip.listener_port, vip.protocol))
                .copied()
                .unwrap_or_default();
            let address = Address::from(vip.address);
            let key = vip::Key::service(address, vip.port, vip.protocol.number());
            let entry = vip::Entry {
                vip: index,
                listener,
                pool: vip::LOCAL_POOL,
                tag: vip::tag(index, 0),
                flags: 0,
            };
            next.vips.insert(key, entry);
            let marker = if own.contains(&vip.address) {
                vip::Entry::marker(vip::Entry::SHARED)
            } else {
                vip::Entry::marker(0)
            };
            next.vips.insert(vip::Key::marker(address), marker);
        }
        for address in tunnels::plain_addresses(desired) {
            let marker = vip::Key::marker(Address::from(address));
            next.vips
                .entry(marker)
                .or_insert(vip::Entry::marker(vip::Entry::SHARED));
        }
        next.vip_indexes = vip_indexes;
        next.sockets = socket_ids(&next.listeners, sockets)?;
        if with_routes {
            next.routes = desired.vips.iter().map(|vip| vip.address).collect();
        }
        Ok(next)
    }

    /// The VIP that has an index.
    #[must_use]
    pub fn vip_at(&self, index: u32) -> Option<VipId> {
        let (&(address, port, protocol), _) =
            self.vip_indexes.iter().find(|&(_, &at)| u32::from(at) == index)?;
        Some(VipId {
            address,
            port,
            protocol,
        })
    }

    /// Workers' claims to slots of the Maglev table.
    #[must_use]
    pub fn shares(&self) -> Vec<Share> {
        self.workers
            .iter()
            .map(|(&WorkerId(worker), &weight)| Share { worker, weight })
            .collect()
    }
}

/// A VIP by what clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipId {
    /// Virtual address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// `192.0.2.80:443/tcp`, `[2001:db8::80]:443/tcp`.
impl fmt::Display for VipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = std::net::SocketAddr::new(self.address, self.port);
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{address}/{protocol}")
    }
}

fn name(vip: &Vip) -> VipName {
    (vip.address, vip.port, vip.protocol)
}

fn config(desired: &DataPathConfig, sources: &sources::Entries) -> Result<Config, Error> {
    let mut config = Config {
        hash: HashKey::from_seed(desired.hash_seed),
        workers: desired
            .workers
            .iter()
            .map(|worker| u32::from(worker.id.0) + 1)
            .max()
            .unwrap_or_default(),
        flags: Config::IS_CONFIGURED,
        ..Config::default()
    };
    if let Some(limits) = desired.flood {
        config.flags |= Config::HAS_FLOOD_LIMITS;
        config.flood = flood_limits(limits);
    }
    if !sources.is_empty() {
        config.flags |= Config::HAS_SOURCES;
        config.sources = sources::lengths(sources);
        if !desired.sources.allow.is_empty() {
            config.flags |= Config::HAS_ALLOWED;
        }
    }
    if !desired.reflection_ports.is_empty() {
        config.flags |= Config::HAS_REFLECTION_PORTS;
    }
    let (flags, syn_cookies) = syncookies::desired(desired);
    config.flags |= flags;
    config.syn_cookies = syn_cookies;
    for vip in &desired.vips {
        config.vips.insert(&Address::from(vip.address));
    }
    let (flags, tunnels) = tunnels::settings(desired)?;
    config.flags |= flags;
    config.decap = tunnels;
    Ok(config)
}

fn flood_limits(limits: FloodLimits) -> flood::Limits {
    let rate = |rate: TokenRate| flood::Rate::new(rate.per_second, rate.burst);
    flood::Limits {
        packets: rate(limits.packets),
        new_connections: rate(limits.new_connections),
    }
}

fn vip_indexes(old: &BTreeMap<VipName, u16>, vips: &[Vip]) -> Result<BTreeMap<VipName, u16>, Error> {
    let mut names = BTreeSet::new();
    if let Some(&vip) = vips.iter().find(|vip| !names.insert(name(vip))) {
        return Err(Error::DuplicateVip { vip });
    }
    indexes(old, names, "VIPs", MAX_VIPS)
}

fn listeners(
    old: &BTreeMap<ListenerName, u16>,
    desired: &DataPathConfig,
    sockets: &[WorkerSocket<'_>],
) -> Result<BTreeMap<ListenerName, u16>, Error> {
    let of_vips = desired.vips.iter().map(|vip| (vip.listener_port, vip.protocol));
    let of_sockets = sockets.iter().map(|socket| (socket.port, socket.protocol));
    indexes(
        old,
        of_vips.chain(of_sockets).collect(),
        "listener ports",
        MAX_LISTENERS,
    )
}

/// Gives each name an index: the old one, or the lowest that none of these names has or had.
fn indexes<N: Ord + Copy>(
    old: &BTreeMap<N, u16>,
    names: BTreeSet<N>,
    what: &'static str,
    limit: u32,
) -> Result<BTreeMap<N, u16>, Error> {
    if names.len() > limit as usize {
        return Err(Error::TooMany {
            what,
            wanted: names.len(),
            limit: limit as usize,
        });
    }
    let kept: BTreeSet<u16> = names.iter().filter_map(|name| old.get(name).copied()).collect();
    // An index that is given away in the same change would lend the old owner's packets to the new one's counters,
    // so the free ones come first.
    let in_use: BTreeSet<u16> = old.values().copied().collect();
    let fresh = (0..limit as u16).filter(|index| !in_use.contains(index));
    let given_away = (0..limit as u16).filter(|index| in_use.contains(index) && !kept.contains(index));
    let mut unused = fresh.chain(given_away);
    let index = |name: N| Some((name, old.get(&name).copied().or_else(|| unused.next())?));
    Ok(names.into_iter().filter_map(index).collect())
}

fn workers(workers: &[Worker]) -> Result<BTreeMap<WorkerId, u32>, Error> {
    let mut map = BTreeMap::new();
    for worker in workers {
        let is_new = map.insert(worker.id, worker.weight).is_none();
        if !is_new || u32::from(worker.id.0) >= MAX_LOCAL_WORKERS {
            return Err(Error::BadWorker {
                worker: worker.id,
                limit: MAX_LOCAL_WORKERS - 1,
            });
        }
    }
    Ok(map)
}

fn socket_ids(
    listeners: &BTreeMap<ListenerName, u16>,
    sockets: &[WorkerSocket<'_>],
) -> Result<BTreeMap<u32, SocketId>, Error> {
    let mut ids = BTreeMap::new();
    for socket in sockets {
        let WorkerSocket { worker, port, .. } = *socket;
        if u32::from(worker.0) >= MAX_LOCAL_WORKERS {
            return Err(Error::BadWorker {
                worker,
                limit: MAX_LOCAL_WORKERS - 1,
            });
        }
        let cookie =
            sys::socket_cookie(socket.fd).map_err(|source| Error::Socket { worker, port, source })?;
        if let Some(&listener) = listeners.get(&(port, socket.protocol)) {
            ids.insert(
                socket_index(listener, u32::from(worker.0)),
                SocketId { worker, port, cookie },
            );
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use edge_model::WorkerKind;

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
            .map(|&port| image.vip_indexes[&(address, port, Protocol::Tcp)])
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
            .filter(|&&entry| entry == vip::Entry::marker(0))
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
            Some(&vip::Entry::marker(vip::Entry::SHARED))
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
