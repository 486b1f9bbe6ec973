//! Typed handles of the BPF maps.

use std::os::fd::BorrowedFd;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockMap};
use edge_common::counter::{SteerCounters, VipCounters, WorkerCounters};
use edge_common::maglev::Table;
use edge_common::verdict::Trace;
use edge_common::{Address, Config, maps as names, penalty, vip};

use crate::Error;

/// Every map that userspace reads or writes.
pub(crate) struct Maps {
    config: Array<MapData, Config>,
    vips: HashMap<MapData, vip::Key, vip::Entry>,
    maglev: Array<MapData, Table>,
    sockets: SockMap<MapData>,
    pub(crate) penalties: HashMap<MapData, Address, penalty::Entry>,
    pub(crate) passes: PerCpuArray<MapData, u64>,
    pub(crate) drops: PerCpuArray<MapData, u64>,
    pub(crate) vip_counters: PerCpuArray<MapData, VipCounters>,
    pub(crate) worker_counters: PerCpuArray<MapData, WorkerCounters>,
    pub(crate) steer_counters: PerCpuArray<MapData, SteerCounters>,
    trace: Array<MapData, Trace>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            config: take(ebpf, names::CONFIG)?,
            vips: take(ebpf, names::VIPS)?,
            maglev: take(ebpf, names::MAGLEV)?,
            sockets: take(ebpf, names::WORKER_SOCKETS)?,
            penalties: take(ebpf, names::PENALTIES)?,
            passes: take(ebpf, names::PASSES)?,
            drops: take(ebpf, names::DROPS)?,
            vip_counters: take(ebpf, names::VIP_COUNTERS)?,
            worker_counters: take(ebpf, names::WORKER_COUNTERS)?,
            steer_counters: take(ebpf, names::STEER_COUNTERS)?,
            trace: take(ebpf, names::TRACE)?,
        })
    }

    pub(crate) fn write_config(&mut self, config: &Config) -> Result<(), Error> {
        self.config
            .set(0, config, 0)
            .map_err(Error::map(names::CONFIG, "write"))
    }

    pub(crate) fn write_table(&mut self, table: &Table) -> Result<(), Error> {
        self.maglev
            .set(0, table, 0)
            .map_err(Error::map(names::MAGLEV, "write"))
    }

    pub(crate) fn write_vip(&mut self, key: &vip::Key, entry: vip::Entry) -> Result<(), Error> {
        self.vips
            .insert(key, entry, 0)
            .map_err(Error::map(names::VIPS, "write an entry"))
    }

    pub(crate) fn remove_vip(&mut self, key: &vip::Key) -> Result<(), Error> {
        self.vips
            .remove(key)
            .map_err(Error::map(names::VIPS, "remove an entry"))
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

    pub(crate) fn zero_vip_counters(&mut self, index: u16) -> Result<(), Error> {
        let failed = |error| Error::map(names::VIP_COUNTERS, "zero")(error);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
        let zeroes = aya::maps::PerCpuValues::try_from(vec![VipCounters::default(); cpus])
            .map_err(|error| failed(MapError::IoError(error)))?;
        self.vip_counters.set(u32::from(index), zeroes, 0).map_err(failed)
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

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, Error> {
    let map = ebpf.take_map(name).ok_or(Error::MissingPart { part: name })?;
    M::try_from(map).map_err(Error::map(name, "open"))
}

/// Whether an operation failed because the element is not there.
pub(crate) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound | MapError::ElementNotFound)
        || matches!(crate::error::errno(error), Some(libc::ENOENT | libc::EINVAL))
}
