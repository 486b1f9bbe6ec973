//! Next hops of workers elsewhere: found in the kernel's tables, kept known, and followed.
//!
//! What an address's next hop is, the data path itself is asked ([`edge_common::route`]); its MAC address is kept known by
//! the kernel ([`Neighbours`]). What was found is written into the workers' entries, so that no packet has to ask, and is
//! good as long as this goes on looking: at everything that the kernel tells, and at all of it once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use edge_common::route::{FORWARDING_IS_OFF, FOUND, Lookup, NO_NEIGHBOUR};
use edge_common::{Address, maps as names, worker};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::devices::Device;
use crate::error::errno;
use crate::kernel::Kernel;
use crate::neighbours::{Neighbour, Neighbours};
use crate::netlink::News;
use crate::pools::Pools;
use crate::{Error, devices, sys};

/// What changes where packets go (`RTNLGRP_*` in linux/rtnetlink.h): links, neighbours, routes and rules of both families,
/// whether interfaces forward, next hop objects.
const GROUPS: [u32; 9] = [1, 3, 7, 8, 11, 19, 24, 25, 32];

/// How often all is looked at, whatever the kernel tells; and how often a neighbour that does not answer is asked.
const SWEEP: Duration = Duration::from_secs(1);

/// How long what was found is good if nobody looks any more: the process has ended, or hangs.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// How long a change of configuration waits for the MAC addresses of new workers. Who is there answers in a millisecond.
const RESOLVING: Duration = Duration::from_millis(300);

/// How long a MAC address is used on that the kernel has forgotten, while it asks for it: as long as it asks before it gives
/// up (three times, once a second). Somebody may have emptied the table.
const HOLD: Duration = Duration::from_secs(3);

/// Where the data path sends packets to an address first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that they leave by; 0: the one that they came by.
    pub interface: u32,
    /// The VLAN that they leave in; 0: in none.
    pub vlan: u16,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// MAC address of the interface.
    pub source_mac: [u8; 6],
    /// Whether it is the address itself, and no router.
    pub is_direct: bool,
}

impl NextHop {
    /// A worker's entry with it.
    fn complete(&self, entry: worker::Entry) -> worker::Entry {
        if entry.mode == worker::L2 && !self.is_direct {
            return entry;
        }
        worker::Entry {
            interface: self.interface,
            next_hop: self.mac,
            source_mac: self.source_mac,
            vlan: self.vlan,
            hop: worker::FOUND,
            ..entry
        }
    }
}

/// What is known of the way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is the same for all packets, and begins at this neighbour.
    Known(Neighbour, NextHop),
    /// It depends on the interface that a packet came by, so each asks for itself.
    Asked,
    /// The MAC address of this neighbour is not known.
    Silent(Neighbour),
    /// There is none, and why.
    None(String),
}

/// Follows the next hops of workers.
pub(crate) struct NextHops {
    neighbours: Neighbours,
    news: News,
    /// Devices that the program is attached to.
    ingress: Vec<Ingress>,
    pub(crate) devices: Vec<Device>,
    ways: BTreeMap<IpAddr, Way>,
    /// When everything was looked at last.
    swept: Option<Instant>,
    /// Addresses whose MAC address is not known any more, and since when.
    silent: BTreeMap<IpAddr, Instant>,
    /// What the operator was told of.
    told: BTreeMap<IpAddr, String>,
    /// Why the kernel keeps not all neighbours known.
    refusal: Option<String>,
}

/// A device that the program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) device: u32,
    /// Whether the program runs in its driver.
    pub(crate) is_native: bool,
}

impl NextHops {
    /// Opens netlink in the calling thread's namespace.
    pub(crate) fn open(ingress: Vec<Ingress>) -> Result<Self, Error> {
        let failed = |source| Error::NextHops { source };
        Ok(Self {
            neighbours: Neighbours::open().map_err(failed)?,
            news: News::of(&GROUPS).map_err(failed)?,
            devices: devices::all().map_err(failed)?,
            ingress,
            ways: BTreeMap::new(),
            swept: None,
            silent: BTreeMap::new(),
            told: BTreeMap::new(),
            refusal: None,
        })
    }

    /// Where the kernel's news arrive.
    pub(crate) const fn news(&self) -> &News {
        &self.news
    }

    /// Leaves the neighbours to the kernel.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        self.neighbours
            .release_all()
            .map_err(|source| Error::NextHops { source })
    }

    /// Why packets do not get to a worker; `None` if they do.
    pub(crate) fn obstacle(&self, entry: &worker::Entry) -> Option<String> {
        match self.ways.get(&asked_for(entry)?)? {
            way @ (Way::None(_) | Way::Silent(_)) => self.reason(way),
            Way::Known(_, hop) if entry.mode == worker::L2 && !hop.is_direct => Some(
                "it is behind a router, and mode `l2` reaches neighbours alone (use `ipip` or `gue`)".into(),
            ),
            Way::Known(..) | Way::Asked => None,
        }
    }

    /// Why a way leads nowhere.
    fn reason(&self, way: &Way) -> Option<String> {
        match way {
            Way::Silent(Neighbour { interface, address }) => Some(format!(
                "{address} does not say its MAC address on {}",
                self.name(*interface)
            )),
            Way::None(why) => Some(why.clone()),
            Way::Known(..) | Way::Asked => None,
        }
    }

    /// Whether frames can be sent by a device.
    pub(crate) fn may_leave_by(&self, device: &Device) -> bool {
        device.sends_frames() || self.ingress.iter().all(|ingress| !ingress.is_native)
    }

    /// Reads what the kernel told; true if it changes a way.
    fn hear(&mut self) -> bool {
        let Some(news) = self.news.fetch() else {
            return true;
        };
        let mut changes = false;
        for message in news {
            changes |= if let RouteNetlinkMessage::NewNeighbour(message) = &message {
                let neighbour = Neighbour::of(message).filter(|neighbour| self.neighbours.keeps(neighbour));
                neighbour.is_some_and(|neighbour| {
                    self.neighbours.heard(&neighbour, message);
                    true
                })
            } else if let RouteNetlinkMessage::DelNeighbour(message) = &message {
                let neighbour = Neighbour::of(message).filter(|neighbour| self.neighbours.keeps(neighbour));
                neighbour.is_some_and(|neighbour| {
                    self.neighbours.forget(&neighbour);
                    true
                })
            } else {
                true
            };
        }
        changes
    }

    /// Takes note of what was answered for each address, and has the neighbours on the ways kept known. The answer is the
    /// addresses whose way is another than before.
    fn note(&mut self, answers: &BTreeMap<IpAddr, Vec<(Ingress, Lookup)>>) -> BTreeSet<IpAddr> {
        let (mut wanted, mut unknown) = (BTreeSet::new(), BTreeSet::new());
        let mut changed = BTreeSet::new();
        for (&address, answers) in answers {
            let (way, neighbours) = self.judge(address, answers);
            for (neighbour, is_known) in neighbours {
                wanted.insert(neighbour);
                if !is_known {
                    unknown.insert(neighbour);
                }
            }
            if !self.holds(address, &way) && self.ways.get(&address) != Some(&way) {
                changed.insert(address);
                self.ways.insert(address, way);
            }
        }
        self.ways.retain(|address, _| answers.contains_key(address));
        self.silent.retain(|address, _| answers.contains_key(address));
        let is_due = self.is_due();
        if is_due {
            self.swept = Some(Instant::now());
        } else {
            // The kernel is at it.
            unknown.clear();
        }
        let outcome = self.neighbours.keep(&wanted, &unknown);
        let refusal = outcome.err().map(|error| error.to_string());
        if refusal != self.refusal {
            if let Some(error) = &refusal {
                tracing::warn!(
                    error,
                    "the kernel does not keep the MAC addresses of all next hops known"
                );
            }
            self.refusal = refusal;
        }
        changed
    }

    /// Whether what was found before is held on to, though the kernel has forgotten the MAC address.
    fn holds(&mut self, address: IpAddr, way: &Way) -> bool {
        let Way::Silent(neighbour) = way else {
            self.silent.remove(&address);
            return false;
        };
        let since = self.silent.entry(address).or_insert_with(Instant::now);
        let before = self.ways.get(&address);
        matches!(before, Some(Way::Known(before, _)) if before == neighbour) && since.elapsed() < HOLD
    }

    fn is_due(&self) -> bool {
        self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP)
    }

    /// Tells the operator of workers that packets do not get to, and when they do again.
    fn tell(&mut self) {
        let mut told = BTreeMap::new();
        for (address, way) in &self.ways {
            let (before, now) = (self.told.get(address), self.reason(way));
            match &now {
                Some(why) if before != Some(why) => {
                    tracing::warn!(%address, why, "packets do not get to a worker");
                }
                None if before.is_some() => tracing::info!(%address, "packets get to a worker again"),
                Some(_) | None => {}
            }
            told.extend(now.map(|why| (*address, why)));
        }
        self.told = told;
    }

    /// What the answers for an address mean, one for each device that packets come by; and the neighbours on its ways, each
    /// with whether its MAC address is known.
    fn judge(&self, address: IpAddr, answers: &[(Ingress, Lookup)]) -> (Way, Vec<(Neighbour, bool)>) {
        let has_hop = |lookup: &&Lookup| matches!(lookup.answer, FOUND | NO_NEIGHBOUR);
        let lookups = answers.iter().map(|(_, lookup)| lookup);
        let neighbours = lookups
            .filter(has_hop)
            .map(|lookup| (neighbour(lookup), lookup.answer == FOUND));
        let mut ways = answers
            .iter()
            .map(|&(ingress, lookup)| self.way(ingress, address, &lookup));
        let first = ways.next().unwrap_or(Way::Asked);
        let way = ways.fold(first, |one, other| match (one, other) {
            (one, other) if one == other => one,
            (Way::None(why), _) | (_, Way::None(why)) => Way::None(why),
            (Way::Silent(neighbour), _) | (_, Way::Silent(neighbour)) => Way::Silent(neighbour),
            _ => Way::Asked,
        });
        (way, neighbours.collect())
    }

    /// The way of packets that come by one device.
    fn way(&self, ingress: Ingress, address: IpAddr, lookup: &Lookup) -> Way {
        let (came_by, leaves_by) = (self.name(ingress.device), self.name(lookup.interface));
        let neighbour = neighbour(lookup);
        match lookup.answer {
            FOUND => {}
            NO_NEIGHBOUR => return Way::Silent(neighbour),
            FORWARDING_IS_OFF => {
                let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
                return Way::None(format!(
                    "forwarding is off for {came_by} (sysctl net.{family}.conf.{came_by}.forwarding=1)"
                ));
            }
            answer => {
                return Way::None(format!(
                    "no route leads from {came_by} to {address} (bpf_fib_lookup: {answer})"
                ));
            }
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = lookup.macs;
        let mut hop = NextHop {
            interface: lookup.interface,
            vlan: 0,
            mac: [a, b, c, d, e, f],
            source_mac: [g, h, i, j, k, l],
            is_direct: neighbour.address == address,
        };
        if lookup.interface == ingress.device {
            return Way::Known(neighbour, hop);
        }
        let device = self.device(lookup.interface);
        if let Some((parent, id)) = device.and_then(Device::vlan) {
            hop.interface = parent;
            hop.vlan = id;
        }
        match self.device(hop.interface) {
            Some(device) if self.may_leave_by(device) => Way::Known(neighbour, hop),
            _ => Way::None(format!(
                "{leaves_by}, which leads to it, takes no frames of XDP from {came_by}"
            )),
        }
    }

    fn name(&self, index: u32) -> &str {
        self.device(index)
            .map_or("an interface that is gone", |device| &device.name)
    }

    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }
}

/// Who an answer sends packets to first.
fn neighbour(lookup: &Lookup) -> Neighbour {
    Neighbour {
        interface: lookup.interface,
        address: IpAddr::from(lookup.next_hop),
    }
}

/// The address whose next hop is asked for on the way to a worker; `None` if it is configured, or the worker is here.
fn asked_for(entry: &worker::Entry) -> Option<IpAddr> {
    let asks = entry.mode != worker::LOCAL && entry.state != worker::ABSENT && entry.next_hop == [0; 6];
    asks.then(|| IpAddr::from(entry.address))
}

impl Kernel {
    /// Follows the routes to workers from now on, for packets that come by these devices.
    pub(crate) fn follow_routes(&mut self, ingress: Vec<Ingress>) -> Result<(), Error> {
        let program: &mut Xdp = self.program(names::ROUTE_PROGRAM)?;
        program.load().map_err(Error::program(names::ROUTE_PROGRAM))?;
        self.next_hops = Some(NextHops::open(ingress)?);
        Ok(())
    }

    /// Looks at what the kernel told, and at everything if that is due, and writes what has changed into the workers'
    /// entries.
    pub(crate) fn keep_routes(&mut self) -> Result<(), Error> {
        let Some(next_hops) = &mut self.next_hops else {
            return Ok(());
        };
        let is_due = next_hops.is_due();
        if !next_hops.hear() && !is_due {
            return Ok(());
        }
        let devices = devices::all().map_err(|source| Error::Devices { source })?;
        next_hops.devices.clone_from(&devices);
        if !self.devices.is_empty() {
            self.allow_devices(&devices)?;
        }
        let changed = self.look(None)?;
        if let Some(next_hops) = self.next_hops.as_mut().filter(|_| is_due) {
            next_hops.tell();
        }
        self.write_workers(&changed)
    }

    /// Says what the routes would say of an address, where there is no interface to ask for.
    pub(crate) fn pretend(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        self.hops.insert(address, hop);
        self.maps.write_watched_until(u64::MAX)?;
        self.write_workers(&[address].into())
    }

    /// Writes the entries of workers at these addresses anew.
    fn write_workers(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let is_meant = |entry: &worker::Entry| asked_for(entry).is_some_and(|at| addresses.contains(&at));
        let meant = self
            .image
            .pools
            .workers
            .iter()
            .filter(|(_, entry)| is_meant(entry));
        for (index, entry) in meant.map(|(&index, &entry)| (index, entry)).collect::<Vec<_>>() {
            self.write_worker(index, entry)?;
        }
        Ok(())
    }

    /// Looks for the next hops of workers that are to be written, and waits a moment for the MAC addresses of new ones.
    pub(crate) fn find_routes(&mut self, pools: &Pools) -> Result<(), Error> {
        let Some(next_hops) = &self.next_hops else {
            return Ok(());
        };
        let is_new = |address: &IpAddr| !next_hops.ways.contains_key(address);
        let wanted = wanted(pools);
        let new: Vec<_> = wanted.iter().copied().filter(is_new).collect();
        let deadline = Instant::now() + RESOLVING;
        loop {
            let changed = self.look(Some(&wanted))?;
            self.write_workers(&changed)?;
            let ways = self.next_hops.as_ref().map(|next_hops| &next_hops.ways);
            let is_open = |address: &IpAddr| {
                ways.and_then(|ways| ways.get(address))
                    .is_some_and(|way| matches!(way, Way::Silent(_)))
            };
            if !new.iter().any(is_open) || Instant::now() >= deadline {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Writes a worker's entry with the next hop that was found for it.
    pub(crate) fn write_worker(&mut self, index: u16, entry: worker::Entry) -> Result<(), Error> {
        let hop = asked_for(&entry).and_then(|address| self.hops.get(&address));
        let entry = hop.map_or(entry, |hop| hop.complete(entry));
        if entry.interface != 0 {
            self.allow_device(entry.interface)?;
        }
        self.maps.write_worker(index, &entry)
    }

    /// Asks for the ways to all workers, or to these addresses too; the answer is those whose way is another than before.
    fn look(&mut self, more: Option<&BTreeSet<IpAddr>>) -> Result<BTreeSet<IpAddr>, Error> {
        let mut addresses = wanted(&self.image.pools);
        addresses.extend(more.into_iter().flatten());
        let ingress = self.next_hops.as_ref().map(|next_hops| next_hops.ingress.clone());
        let ingress = ingress.unwrap_or_default();
        let mut answers = BTreeMap::new();
        let mut now = None;
        for &address in &addresses {
            for &ingress in &ingress {
                let lookup = self.ask(ingress.device, address)?;
                now = now.max(Some(lookup.now));
                answers
                    .entry(address)
                    .or_insert_with(Vec::new)
                    .push((ingress, lookup));
            }
        }
        let Some(next_hops) = &mut self.next_hops else {
            return Ok(BTreeSet::new());
        };
        let changed = next_hops.note(&answers);
        let known = next_hops.ways.iter().filter_map(|(address, way)| match way {
            Way::Known(_, hop) => Some((*address, *hop)),
            Way::Asked | Way::Silent(_) | Way::None(_) => None,
        });
        self.hops = known.collect();
        if let Some(now) = now {
            self.maps.write_watched_until(now + sys::jiffies(GOOD_FOR))?;
        }
        Ok(changed)
    }

    /// Runs the data path's own program on a question.
    fn ask(&mut self, device: u32, address: IpAddr) -> Result<Lookup, Error> {
        let failed = |source| Error::TestRun {
            len: size_of::<Lookup>(),
            source: Box::new(source),
        };
        let mut bytes = [0; size_of::<Lookup>()];
        let words = Address::from(address).0.map(u32::to_ne_bytes);
        bytes[..size_of::<Address>()].copy_from_slice(words.as_flattened());
        let mut answer = bytes;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, bytes.len() as u32, 0, device, 0, 0].map(u32::to_ne_bytes);
        let program: &mut Xdp = self.program(names::ROUTE_PROGRAM)?;
        let run = program.test_run(TestRunOptions {
            data_in: Some(&bytes),
            data_out: Some(&mut answer),
            ctx_in: Some(context.as_flattened()),
            ..Default::default()
        });
        match run {
            Ok(_) => Ok(read(&answer)),
            Err(error) => match errno(&error) {
                // The device is gone, or has no queue: nothing comes by it.
                Some(number @ (libc::ENODEV | libc::EINVAL | libc::ENXIO)) => Ok(Lookup {
                    answer: -number,
                    ..read(&bytes)
                }),
                _ => Err(failed(error)),
            },
        }
    }
}

/// An answer as it stands in the frame.
fn read(bytes: &[u8; size_of::<Lookup>()]) -> Lookup {
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| bytes[4 * at + byte]));
    let address = |at: usize| Address(std::array::from_fn(|index| word(at + index)));
    Lookup {
        address: address(0),
        next_hop: address(4),
        interface: word(8),
        answer: word(9) as i32,
        macs: std::array::from_fn(|byte| bytes[40 + byte]),
        padding: word(13),
        now: u64::from_ne_bytes(std::array::from_fn(|byte| bytes[56 + byte])),
    }
}

/// The addresses that are asked for on the ways to the workers of pools.
fn wanted(pools: &Pools) -> BTreeSet<IpAddr> {
    pools.workers.values().filter_map(asked_for).collect()
}
