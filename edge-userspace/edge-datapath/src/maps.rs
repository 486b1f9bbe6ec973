//! Typed handles of the BPF maps.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use aya::maps::lpm_trie::{self, LpmTrie};
use aya::maps::xdp::{DevMapHash, XdpMapError};
use aya::maps::{
    Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf, SockMap,
};
use aya::programs::ProgramFd;
use aya::{Ebpf, Pod};
use edge_common::connection::{Bucket4, Bucket6};
use edge_common::counter::{Drops, SteerCounters, VipCounters, WorkerCounters};
use edge_common::maglev;
use edge_common::route::Uplink;
use edge_common::syncookie::Guard;
use edge_common::tenant::Tenant;
use edge_common::verdict::Trace;
use edge_common::{
    Address, Config, decap, flood, maps as names, penalty, prefix_table, vip, vip_table, worker,
};

use crate::Error;
use crate::table::{Bucket, Table, TableMaps};

/// Every map that userspace reads or writes.
pub(crate) struct Maps {
    config: Array<MapData, Config>,
    vips: TableMaps<vip_table::Bucket>,
    vip_table: Table<vip_table::Bucket>,
    maglev: Array<MapData, maglev::Table>,
    workers: Array<MapData, worker::Entry>,
    vip_prefixes: LpmTrie<MapData, Address, u32>,
    devices: DevMapHash<MapData>,
    uplinks: HashMap<MapData, u32, Uplink>,
    watched_until: Array<MapData, u64>,
    pub(crate) flows: PerCpuArray<MapData, u64>,
    sockets: SockMap<MapData>,
    pub(crate) sources: TableMaps<prefix_table::Bucket>,
    pub(crate) cells: Array<MapData, u64>,
    reflection_ports: Array<MapData, u64>,
    pub(crate) penalties: Array<MapData, penalty::Entry>,
    pub(crate) penalised: TableMaps<prefix_table::Bucket>,
    pub(crate) passes: PerCpuArray<MapData, u64>,
    pub(crate) drops: PerCpuArray<MapData, Drops>,
    pub(crate) vip_counters: PerCpuArray<MapData, VipCounters>,
    vip_guards: Array<MapData, Guard>,
    flood: Array<MapData, flood::Set>,
    pub(crate) worker_counters: PerCpuArray<MapData, WorkerCounters>,
    pub(crate) steer_counters: PerCpuArray<MapData, SteerCounters>,
    pub(crate) replies: PerCpuArray<MapData, u64>,
    pub(crate) left_to_kernel: PerCpuArray<MapData, u64>,
    pub(crate) events: RingBuf<MapData>,
    tunnel_peers: Array<MapData, decap::Trusted>,
    pub(crate) tenants: Array<MapData, Tenant>,
    pub(crate) connections4: Array<MapData, Bucket4>,
    pub(crate) connections6: Array<MapData, Bucket6>,
    pub(crate) evictions: PerCpuArray<MapData, u64>,
    trace: Array<MapData, Trace>,
    general: ProgramArray<MapData>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            config: take(ebpf, names::CONFIG)?,
            vips: take_table(ebpf, names::VIPS, names::MORE_VIPS)?,
            vip_table: Table::new(names::VIP_BUCKET_BITS),
            maglev: take(ebpf, names::MAGLEV)?,
            workers: take(ebpf, names::WORKERS)?,
            vip_prefixes: take(ebpf, names::VIP_PREFIXES)?,
            devices: take(ebpf, names::DEVICES)?,
            uplinks: take(ebpf, names::UPLINKS)?,
            watched_until: take(ebpf, names::WATCHED_UNTIL)?,
            flows: take(ebpf, names::FLOWS)?,
            sockets: take(ebpf, names::WORKER_SOCKETS)?,
            sources: take_table(ebpf, names::SOURCES, names::MORE_SOURCES)?,
            cells: take(ebpf, names::CELLS)?,
            reflection_ports: take(ebpf, names::REFLECTION_PORTS)?,
            penalties: take(ebpf, names::PENALTIES)?,
            penalised: take_table(ebpf, names::PENALISED, names::MORE_PENALISED)?,
            passes: take(ebpf, names::PASSES)?,
            drops: take(ebpf, names::DROPS)?,
            vip_counters: take(ebpf, names::VIP_COUNTERS)?,
            vip_guards: take(ebpf, names::VIP_GUARDS)?,
            flood: take(ebpf, names::FLOOD)?,
            worker_counters: take(ebpf, names::WORKER_COUNTERS)?,
            steer_counters: take(ebpf, names::STEER_COUNTERS)?,
            replies: take(ebpf, names::REPLIES)?,
            left_to_kernel: take(ebpf, names::LEFT_TO_KERNEL)?,
            events: take(ebpf, names::EVENTS)?,
            tunnel_peers: take(ebpf, names::TUNNEL_PEERS)?,
            tenants: take(ebpf, names::TENANTS)?,
            connections4: take(ebpf, names::CONNECTIONS4)?,
            connections6: take(ebpf, names::CONNECTIONS6)?,
            evictions: take(ebpf, names::EVICTIONS)?,
            trace: take(ebpf, names::TRACE)?,
            general: take(ebpf, names::GENERAL)?,
        })
    }

    /// Tells the program that judges ordinary packets which one judges all others.
    pub(crate) fn write_general(&mut self, program: &ProgramFd) -> Result<(), Error> {
        self.general
            .set(0, program, 0)
            .map_err(Error::map(names::GENERAL, "write"))
    }

    pub(crate) fn write_config(&mut self, config: &Config) -> Result<(), Error> {
        self.config
            .set(0, config, 0)
            .map_err(Error::map(names::CONFIG, "write"))
    }

    pub(crate) fn write_table(&mut self, pool: u16, table: &maglev::Table) -> Result<(), Error> {
        self.maglev
            .set(u32::from(pool), table, 0)
            .map_err(Error::map(names::MAGLEV, "write"))
    }

    pub(crate) fn write_worker(&mut self, index: u16, entry: &worker::Entry) -> Result<(), Error> {
        self.workers
            .set(u32::from(index), entry, 0)
            .map_err(Error::map(names::WORKERS, "write"))
    }

    /// Says until which timer tick the next hops in the workers' entries are good.
    pub(crate) fn write_watched_until(&mut self, tick: u64) -> Result<(), Error> {
        self.watched_until
            .set(0, tick, 0)
            .map_err(Error::map(names::WATCHED_UNTIL, "write"))
    }

    pub(crate) fn write_prefix(&mut self, key: &vip::PrefixKey, free_bits: u32) -> Result<(), Error> {
        self.vip_prefixes
            .insert(&lpm_trie::Key::new(key.len, key.address), free_bits, 0)
            .map_err(Error::map(names::VIP_PREFIXES, "write an entry"))
    }

    pub(crate) fn remove_prefix(&mut self, key: &vip::PrefixKey) -> Result<(), Error> {
        self.vip_prefixes
            .remove(&lpm_trie::Key::new(key.len, key.address))
            .map_err(Error::map(names::VIP_PREFIXES, "remove an entry"))
    }

    /// Allows forwarded packets to leave by an interface.
    pub(crate) fn add_device(&mut self, index: u32) -> Result<(), Error> {
        self.devices
            .insert(index, index, None, 0)
            .map_err(|error| match error {
                XdpMapError::MapError(error) => error,
                other => MapError::IoError(std::io::Error::other(other)),
            })
            .map_err(Error::map(names::DEVICES, "write an entry"))
    }

    /// Allows answers to clients to leave by an interface.
    pub(crate) fn write_uplink(&mut self, index: u32, uplink: Uplink) -> Result<(), Error> {
        self.uplinks
            .insert(index, uplink, 0)
            .map_err(Error::map(names::UPLINKS, "write an entry"))
    }

    /// Allows it no longer.
    pub(crate) fn remove_uplink(&mut self, index: u32) -> Result<(), Error> {
        match self.uplinks.remove(&index) {
            Err(error) if !is_absent(&error) => Err(Error::map(names::UPLINKS, "remove an entry")(error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn write_vip(&mut self, key: &vip::Key, entry: vip::Entry) -> Result<(), Error> {
        self.vip_table.insert(*key, entry);
        self.vip_table.write(&mut self.vips)
    }

    pub(crate) fn remove_vip(&mut self, key: &vip::Key) -> Result<(), Error> {
        self.vip_table.remove(key);
        self.vip_table.write(&mut self.vips)
    }

    pub(crate) fn set_socket(&mut self, index: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.sockets
            .set(index, &socket, 0)
            .map_err(Error::map(names::WORKER_SOCKETS, "add a socket"))
    }

    /// Takes a socket out. The kernel may have done so, because the socket was closed.
    pub(crate) fn clear_socket(&mut self, index: u32) -> Result<(), Error> {
        match self.sockets.clear_index(&index) {
            Err(error) if !is_absent(&error) => {
                Err(Error::map(names::WORKER_SOCKETS, "remove a socket")(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes one bit for each port that datagrams are refused from.
    pub(crate) fn write_reflection_ports(&mut self, ports: &BTreeSet<u16>) -> Result<(), Error> {
        for word in 0..names::PORT_WORDS {
            let bits = (0..64).filter(|bit| ports.contains(&((word * 64 + bit) as u16)));
            let bits = bits.fold(0, |bits, bit| bits | 1_u64 << bit);
            self.reflection_ports
                .set(word, bits, 0)
                .map_err(Error::map(names::REFLECTION_PORTS, "write"))?;
        }
        Ok(())
    }

    pub(crate) fn write_tunnel_peers(&mut self, peers: &decap::Trusted) -> Result<(), Error> {
        self.tunnel_peers
            .set(0, peers, 0)
            .map_err(Error::map(names::TUNNEL_PEERS, "write"))
    }

    /// Forgets what packets to the VIP that had an index before left behind: counts, used tokens, and cookies in use.
    pub(crate) fn forget_vip(&mut self, index: u16) -> Result<(), Error> {
        zero(&mut self.vip_counters, names::VIP_COUNTERS, u32::from(index))?;
        self.vip_guards
            .set(index.into(), Guard::default(), 0)
            .map_err(Error::map(names::VIP_GUARDS, "zero"))?;
        zero(&mut self.drops, names::DROPS, Drops::index(Some(index.into())))
    }

    /// Forgets how many tokens each source has used.
    pub(crate) fn forget_sources(&mut self) -> Result<(), Error> {
        for set in 0..1 << names::FLOOD_SET_BITS {
            self.flood
                .set(set, flood::Set::default(), 0)
                .map_err(Error::map(names::FLOOD, "zero"))?;
        }
        Ok(())
    }

    /// Forgets how many tokens each VIP has used; cookies that are in use stay so.
    pub(crate) fn forget_vip_tokens(&mut self) -> Result<(), Error> {
        for vip in 0..names::MAX_VIPS {
            let guard = self
                .vip_guards
                .get(&vip, 0)
                .map_err(Error::map(names::VIP_GUARDS, "read"))?;
            let guard = Guard {
                connections_full_at: 0,
                unanswered_full_at: 0,
                ..guard
            };
            self.vip_guards
                .set(vip, guard, 0)
                .map_err(Error::map(names::VIP_GUARDS, "write"))?;
        }
        Ok(())
    }

    /// Forgets what was counted for the worker that had an index before.
    pub(crate) fn forget_worker(&mut self, index: u16) -> Result<(), Error> {
        zero(&mut self.worker_counters, names::WORKER_COUNTERS, index.into())
    }

    /// The last verdict of a program that was loaded to explain.
    pub(crate) fn trace(&self) -> Result<Trace, Error> {
        self.trace.get(&0, 0).map_err(Error::map(names::TRACE, "read"))
    }

    /// Forgets the last verdict.
    pub(crate) fn clear_trace(&mut self) -> Result<(), Error> {
        self.trace
            .set(0, Trace::default(), 0)
            .map_err(Error::map(names::TRACE, "write"))
    }
}

/// Sets one element of a map to zero on every CPU.
fn zero<C: Pod + Default>(
    map: &mut PerCpuArray<MapData, C>,
    name: &'static str,
    index: u32,
) -> Result<(), Error> {
    let failed = |error| Error::map(name, "zero")(error);
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
    let zeroes = vec![C::default(); cpus];
    let zeroes = PerCpuValues::try_from(zeroes).map_err(|error| failed(MapError::IoError(error)))?;
    map.set(index, zeroes, 0).map_err(failed)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or(Error::MissingPart { part: name })?;
    M::try_from(map).map_err(Error::map(name, "open"))
}

fn take_table<B: Bucket>(
    ebpf: &mut Ebpf,
    name: &'static str,
    rest: &'static str,
) -> Result<TableMaps<B>, Error> {
    Ok(TableMaps {
        buckets: take(ebpf, name)?,
        rest: take(ebpf, rest)?,
        name,
    })
}

/// Whether an operation failed because the element is not there.
pub(crate) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound)
        || matches!(crate::error::errno(error), Some(libc::ENOENT | libc::EINVAL))
}
