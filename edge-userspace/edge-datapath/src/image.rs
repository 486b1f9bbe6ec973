//! What the maps should hold for a configuration, computed without touching them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use edge_common::maps::{MAX_LISTENERS, MAX_LOCAL_WORKERS, MAX_VIPS, socket_index};
use edge_common::prefix::Prefix;
use edge_common::{Address, Config, HashKey, decap, flood, tenant, tunnel, vip};
use edge_model::{
    DataPathConfig, FloodLimits, ForwardMode, Member, Protocol, Spread, TokenRate, Tunnel, Unserved, Vip,
    Worker, WorkerId,
};

use crate::pools::Pools;
use crate::{Error, sources, syncookies, sys, tunnels};

/// A listening socket of a worker, for socket selection.
///
/// It must listen (TCP) or be bound (UDP), on a local address that takes the VIP's family: `[::]` for both.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSocket<'fd> {
    /// The worker that accepts on it.
    pub worker: WorkerId,
    /// Port it is bound to: [`Vip::listener_port`] of the VIPs it serves.
    pub port: u16,
    /// The only address that it is bound to: [`Vip::listener_address`]. `None` for every one.
    pub address: Option<IpAddr>,
    /// Protocol of the socket.
    pub protocol: Protocol,
    /// The socket. It is looked at during the call only; the kernel forgets it when it is closed.
    pub fd: BorrowedFd<'fd>,
}

/// What of a VIP counts as its identity: the listener's port may change.
type VipName = (IpAddr, u8, u16, Protocol);

/// A port that workers listen on, and the address, if it is one alone.
type ListenerName = (Option<IpAddr>, u16, Protocol);

/// What the sockets of a VIP listen on.
fn listener_of(vip: &Vip) -> ListenerName {
    (vip.listener_address, vip.listener_port, vip.protocol)
}

impl WorkerSocket<'_> {
    /// What it listens on.
    pub(crate) fn listener(&self) -> ListenerName {
        (self.address, self.port, self.protocol)
    }
}

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
            config: config(desired, &sources)?,
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
        next.sockets = socket_ids(&next.listeners, sockets)?;
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
            flags: flags(vip, desired),
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
        let (pool, name, address, mode) = self.pools.member_at(worker.0)?;
        Some(MemberId {
            pool: Arc::clone(pool),
            name: Arc::clone(name),
            address: *address,
            mode: *mode,
        })
    }
}

/// A pool's worker by how people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberId {
    /// Name of its pool.
    pub pool: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its address.
    pub address: IpAddr,
    /// How packets get there.
    pub mode: ForwardMode,
}

/// `web/node-1 (10.0.0.11)`.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.pool, self.name, self.address)
    }
}

/// The bits of a VIP's entry.
fn flags(vip: &Vip, desired: &DataPathConfig) -> u32 {
    use vip::Entry;
    let mut flags = match vip.spread {
        Spread::Flow => 0,
        Spread::NoSourcePort => Entry::HASH_NO_SOURCE_PORT,
        Spread::DestinationPort => Entry::HASH_DESTINATION_PORT,
        Spread::Source => Entry::SOURCE_AFFINITY,
    };
    if !vip.remembers {
        flags |= Entry::NO_CONNECTION_TABLE;
    }
    if vip.pool.is_some() {
        flags |= Entry::FORWARDS;
        if desired.tunnel.second_hop && vip.protocol == Protocol::Tcp {
            flags |= Entry::SECOND_HOP;
        }
    }
    flags
}

/// A VIP by what clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipId {
    /// Virtual address.
    pub address: IpAddr,
    /// Bits at its end that do not count.
    pub free_bits: u8,
    /// Port; 0 stands for all.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// `192.0.2.80:443/tcp`, `[2001:db8::80]:443/tcp`; of a prefix `192.0.2.0/24:443/tcp`.
impl fmt::Display for VipId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut address = std::net::SocketAddr::new(self.address, self.port).to_string();
        if self.free_bits > 0 {
            let bits: u8 = if self.address.is_ipv4() { 32 } else { 128 };
            let len = bits.saturating_sub(self.free_bits);
            address = format!("{}/{len}:{}", self.address, self.port);
        }
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{address}/{protocol}")
    }
}

/// Whether packets to a VIP go up this node's stack, be it some.
fn has_local_worker(vip: &Vip, desired: &DataPathConfig, own: &BTreeSet<IpAddr>) -> bool {
    let Some(pool) = vip.pool else { return true };
    let members = desired.pools.get(usize::from(pool)).map(|pool| &pool.members);
    let is_here = |member: &Member| member.mode == ForwardMode::Local || own.contains(&member.address);
    members.is_some_and(|members| members.iter().any(is_here))
}

fn name(vip: &Vip) -> VipName {
    (vip.address, vip.free_bits, vip.port, vip.protocol)
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
        let address = Address::from(vip.address);
        if vip.free_bits > 0 {
            config.flags |= Config::HAS_VIP_PREFIXES;
            config.vip_prefixes.insert_prefix(&address, vip.free_bits);
        } else {
            config.vips.insert(&address);
        }
        if vip.port == 0 {
            config.flags |= Config::HAS_ALL_PORTS;
        }
    }
    let (flags, tunnels) = tunnels::settings(desired)?;
    config.flags |= flags;
    config.decap = tunnels;
    config.tunnel = tunnel(&desired.tunnel);
    config.idle_ticks = sys::ticks(desired.connections.idle);
    Ok(config)
}

fn tunnel(desired: &Tunnel) -> tunnel::Settings {
    // Bits after the prefix, of the address's last word.
    let free = |prefix: &edge_model::Prefix, bits: u8| {
        let free = u32::from(bits - prefix.prefix_len()).min(32);
        (u32::MAX.checked_shr(32 - free).unwrap_or(0)).to_be()
    };
    let [.., source4] = desired
        .source4
        .map_or([0; 4], |prefix| Address::from(prefix.address()).0);
    tunnel::Settings {
        source4,
        source4_bits: desired.source4.map_or(0, |prefix| free(&prefix, 32)),
        source6: desired
            .source6
            .map_or([0; 4], |prefix| Address::from(prefix.address()).0),
        source6_bits: desired.source6.map_or(0, |prefix| free(&prefix, 128)),
        padding: 0,
    }
}

fn flood_limits(limits: FloodLimits) -> flood::Limits {
    let rate = |rate: TokenRate| flood::Rate::new(rate.per_second, rate.burst);
    flood::Limits {
        packets: rate(limits.packets),
        new_connections: rate(limits.new_connections),
    }
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
    /// What stands for the name where it is written down ([`tenant::digest`]).
    fn digest(&self) -> u64;
}

impl Digest for VipName {
    fn digest(&self) -> u64 {
        let (address, free_bits, port, protocol) = self;
        let [high, low] = port.to_be_bytes();
        let words = Address::from(*address).0.map(u32::to_ne_bytes);
        tenant::digest([words.as_flattened(), &[*free_bits, high, low, protocol.number()]])
    }
}

impl Digest for ListenerName {
    fn digest(&self) -> u64 {
        let (address, port, protocol) = self;
        let words = address.map(|address| Address::from(address).0.map(u32::to_ne_bytes));
        let address = words.as_ref().map_or(&[][..], |words| words.as_flattened());
        tenant::digest([address, &port.to_be_bytes(), &[protocol.number()]])
    }
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

fn socket_ids(
    listeners: &Indexes<ListenerName>,
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
        if let Some(listener) = listeners.get(&socket.listener()) {
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
