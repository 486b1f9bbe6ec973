//! Counters of all CPUs, added up.

use aya::Pod;
use aya::maps::{MapData, PerCpuArray};
use edge_common::counter::{Drops, SteerCounters, VipCounters, WorkerCounters};
use edge_common::maps as names;
use edge_common::verdict::{Eviction, LeftToKernel, ReplyReason};
use edge_common::{DropReason, FlowReason, PassReason, worker};
use edge_model::{MemberState, WorkerId};

use crate::image::{Image, MemberId, VipId};
use crate::maps::Maps;
use crate::next_hops::NextHops;
use crate::{Error, InterfaceStatus};

/// What the data path counted since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Interfaces, and how the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// Packets that passed untouched, by reason; every reason is there.
    pub passed: Vec<(PassReason, u64)>,
    /// Packets that were turned into an answer, by what it is; every kind is there.
    pub replied: Vec<(ReplyReason, u64)>,
    /// SYNs that came by tunnels and were left to the kernel's own cookies, by reason; every reason is there.
    pub left_to_kernel: Vec<(LeftToKernel, u64)>,
    /// Packets that were dropped, by reason; every reason is there.
    pub dropped: Vec<(DropReason, u64)>,
    /// By VIP.
    pub vips: Vec<VipStats>,
    /// By worker of this node.
    pub workers: Vec<WorkerStats>,
    /// By worker of a pool.
    pub members: Vec<MemberStats>,
    /// Packets that were forwarded, by how their worker was found; every way is there.
    pub flows: Vec<(FlowReason, u64)>,
    /// Flows that gave their place in the connection table to others, by what they were; every kind is there.
    pub evicted: Vec<(Eviction, u64)>,
}

impl Stats {
    /// Packets that were dropped for a reason.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped
            .iter()
            .find(|&&(of, _)| of == reason)
            .map_or(0, |&(_, count)| count)
    }

    /// Packets that were turned into an answer.
    #[must_use]
    pub fn replied_with(&self, reason: ReplyReason) -> u64 {
        let found = self.replied.iter().find(|&&(of, _)| of == reason);
        found.map_or(0, |&(_, count)| count)
    }

    /// SYNs that were left to the kernel's own cookies.
    #[must_use]
    pub fn left_to_kernel_for(&self, reason: LeftToKernel) -> u64 {
        let found = self.left_to_kernel.iter().find(|&&(of, _)| of == reason);
        found.map_or(0, |&(_, count)| count)
    }

    /// Packets that were dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|&(_, count)| count).sum()
    }
}

/// Traffic of one VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VipStats {
    /// The VIP.
    pub vip: VipId,
    /// Packets, bytes and new connections delivered at the XDP program.
    pub traffic: VipCounters,
    /// Packets dropped, by reason.
    pub drops: Drops,
}

impl VipStats {
    /// Packets that were dropped after it was known that they are for the VIP.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.by_reason.iter().sum()
    }

    /// Those that were dropped, by reason; reasons without any are left out.
    pub fn dropped_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let reasons = DropReason::ALL.iter().zip(self.drops.by_reason);
        reasons
            .filter(|&(_, count)| count > 0)
            .map(|(&reason, count)| (reason, count))
    }
}

/// Traffic of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerStats {
    /// The worker.
    pub worker: WorkerId,
    /// Packets, bytes and new connections delivered at the XDP program.
    pub traffic: WorkerCounters,
    /// Choices of the socket selection. It also sees connections that this node itself makes to its VIPs, which
    /// pass no XDP program.
    pub steering: SteerCounters,
}

/// Traffic of one worker of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStats {
    /// Its index.
    pub worker: WorkerId,
    /// What people call it.
    pub member: MemberId,
    /// Whether it takes flows.
    pub state: MemberState,
    /// Packets, bytes and new connections sent there.
    pub traffic: WorkerCounters,
    /// Why packets do not get there; `None` if they do.
    pub obstacle: Option<String>,
}

/// What one core has done with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreStats {
    /// Packets that passed untouched.
    pub passed: u64,
    /// Packets for workers of this node.
    pub delivered: u64,
    /// Packets for workers elsewhere.
    pub forwarded: u64,
    /// Packets that were turned into an answer.
    pub replied: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

impl CoreStats {
    /// All of them.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.passed + self.delivered + self.forwarded + self.replied + self.dropped
    }
}

/// What each core has done, the first first. Drops for VIPs that are gone are left out.
pub(crate) fn cores(maps: &Maps, image: &Image) -> Result<Vec<CoreStats>, Error> {
    let mut cores = Vec::new();
    for reason in PassReason::ALL {
        each(&maps.passes, names::PASSES, reason.index(), |core, &count| {
            at(&mut cores, core).passed += count;
        })?;
    }
    for reason in FlowReason::ALL {
        each(&maps.flows, names::FLOWS, reason.index(), |core, &count| {
            at(&mut cores, core).forwarded += count;
        })?;
    }
    for reason in ReplyReason::ALL {
        each(&maps.replies, names::REPLIES, reason.index(), |core, &count| {
            at(&mut cores, core).replied += count;
        })?;
    }
    let here = image
        .pools
        .workers
        .iter()
        .filter(|(_, entry)| entry.mode == worker::LOCAL);
    for (&index, _) in here {
        each(
            &maps.worker_counters,
            names::WORKER_COUNTERS,
            index.into(),
            |core, counters| {
                at(&mut cores, core).delivered += counters.packets;
            },
        )?;
    }
    let vips = image.vip_indexes.iter().map(|(_, index)| Some(u32::from(index)));
    for vip in vips.chain([None]) {
        each(&maps.drops, names::DROPS, Drops::index(vip), |core, drops| {
            at(&mut cores, core).dropped += drops.by_reason.iter().sum::<u64>();
        })?;
    }
    Ok(cores)
}

/// Looks at an element's value on every core.
fn each<C: Pod>(
    map: &PerCpuArray<MapData, C>,
    name: &'static str,
    index: u32,
    mut look: impl FnMut(usize, &C),
) -> Result<(), Error> {
    let values = map.get(&index, 0).map_err(Error::map(name, "read"))?;
    values
        .iter()
        .enumerate()
        .for_each(|(core, value)| look(core, value));
    Ok(())
}

/// A core's element, which is made if it is not there.
fn at(cores: &mut Vec<CoreStats>, core: usize) -> &mut CoreStats {
    if cores.len() <= core {
        cores.resize(core + 1, CoreStats::default());
    }
    &mut cores[core]
}

/// Reads every counter that belongs to something in the image. `retired` are the drops of VIPs that are gone.
pub(crate) fn read(
    maps: &Maps,
    image: &Image,
    retired: &Drops,
    interfaces: Vec<InterfaceStatus>,
    next_hops: Option<&NextHops>,
) -> Result<Stats, Error> {
    let passed = |&reason: &PassReason| Ok((reason, sum(&maps.passes, names::PASSES, reason.index())?));
    let replied = |&reason: &ReplyReason| Ok((reason, sum(&maps.replies, names::REPLIES, reason.index())?));
    let left = |&reason: &LeftToKernel| {
        Ok((
            reason,
            sum(&maps.left_to_kernel, names::LEFT_TO_KERNEL, reason.index())?,
        ))
    };
    let flow = |&reason: &FlowReason| Ok((reason, sum(&maps.flows, names::FLOWS, reason.index())?));
    let evicted = |&kind: &Eviction| Ok((kind, sum(&maps.evictions, names::EVICTIONS, kind.index())?));
    let worker = |&worker: &WorkerId| {
        let index = u32::from(worker.0);
        Ok(WorkerStats {
            worker,
            traffic: sum(&maps.worker_counters, names::WORKER_COUNTERS, index)?,
            steering: sum(&maps.steer_counters, names::STEER_COUNTERS, index)?,
        })
    };
    let vips = vips(maps, image)?;
    let mut drops = drops(maps, None)?.plus(retired);
    for vip in &vips {
        drops = drops.plus(&vip.drops);
    }
    let dropped = |&reason: &DropReason| {
        let count = drops.by_reason.get(reason.index() as usize);
        (reason, count.copied().unwrap_or_default())
    };
    Ok(Stats {
        interfaces,
        passed: PassReason::ALL.iter().map(passed).collect::<Result<_, Error>>()?,
        replied: ReplyReason::ALL
            .iter()
            .map(replied)
            .collect::<Result<_, Error>>()?,
        left_to_kernel: LeftToKernel::ALL.iter().map(left).collect::<Result<_, Error>>()?,
        dropped: DropReason::ALL.iter().map(dropped).collect(),
        vips,
        workers: image.workers.iter().map(worker).collect::<Result<_, Error>>()?,
        members: members(maps, image, next_hops)?,
        flows: FlowReason::ALL.iter().map(flow).collect::<Result<_, Error>>()?,
        evicted: Eviction::ALL.iter().map(evicted).collect::<Result<_, Error>>()?,
    })
}

/// Packets dropped for a VIP, or before it was known, by reason.
pub(crate) fn drops(maps: &Maps, vip: Option<u16>) -> Result<Drops, Error> {
    sum(&maps.drops, names::DROPS, Drops::index(vip.map(u32::from)))
}

/// The sum of two counts of drops.
pub(crate) fn add(left: Drops, right: &Drops) -> Drops {
    left.plus(right)
}

fn vips(maps: &Maps, image: &Image) -> Result<Vec<VipStats>, Error> {
    let vip = |&index: &u16| {
        let traffic = sum(&maps.vip_counters, names::VIP_COUNTERS, u32::from(index))?;
        let drops = drops(maps, Some(index))?;
        let vip = image.vip_at(u32::from(index));
        Ok(vip.map(|vip| VipStats { vip, traffic, drops }))
    };
    image
        .vip_indexes
        .iter()
        .map(|(_, index)| vip(&index))
        .filter_map(Result::transpose)
        .collect()
}

fn members(maps: &Maps, image: &Image, next_hops: Option<&NextHops>) -> Result<Vec<MemberStats>, Error> {
    let mut members = Vec::new();
    for (&index, entry) in &image.pools.workers {
        let worker = WorkerId(index);
        let Some(member) = image.member(worker) else {
            continue;
        };
        let state = match entry.state {
            worker::ACTIVE => MemberState::Active,
            worker::DRAINING => MemberState::Draining,
            _ => MemberState::Down,
        };
        let traffic = sum(&maps.worker_counters, names::WORKER_COUNTERS, u32::from(index))?;
        members.push(MemberStats {
            worker,
            member,
            state,
            traffic,
            obstacle: next_hops.and_then(|next_hops| next_hops.obstacle(entry)),
        });
    }
    Ok(members)
}

fn sum<C: Count>(map: &PerCpuArray<MapData, C>, name: &'static str, index: u32) -> Result<C, Error> {
    let values = map.get(&index, 0).map_err(Error::map(name, "read"))?;
    Ok(values.iter().fold(C::default(), |total, value| total.plus(value)))
}

/// A counter that can be added up.
trait Count: Pod + Default {
    fn plus(self, other: &Self) -> Self;
}

impl Count for u64 {
    fn plus(self, other: &Self) -> Self {
        self + other
    }
}

impl Count for Drops {
    fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.by_reason.iter_mut().zip(other.by_reason) {
            *count += more;
        }
        self
    }
}

impl Count for VipCounters {
    fn plus(self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            new_connections: self.new_connections + other.new_connections,
        }
    }
}

impl Count for WorkerCounters {
    fn plus(self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            new_connections: self.new_connections + other.new_connections,
        }
    }
}

impl Count for SteerCounters {
    fn plus(self, other: &Self) -> Self {
        Self {
            steered: self.steered + other.steered,
            moved: self.moved + other.moved,
            no_socket: self.no_socket + other.no_socket,
        }
    }
}
