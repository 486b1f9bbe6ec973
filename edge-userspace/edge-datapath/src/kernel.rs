//! The loaded object with its maps: what [`DataPath`](crate::DataPath) and [`Explainer`](crate::Explainer) share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use aya::programs::{Program, ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use edge_common::counter::Drops;
use edge_common::maglev::Table;
use edge_common::{Config, HashKey, flood, maps::socket_index};
use edge_common::{maps as names, worker};
use edge_model::{DataPathConfig, Penalty};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use crate::connections::{self, ConnectionPage};
use crate::devices::Device;
use crate::flows::Flows;
use crate::image::Image;
use crate::inherited::{self, Inherited};
use crate::maps::Maps;
use crate::next_hops::NextHops;
use crate::penalties::Penalties;
use crate::pins::Pins;
use crate::routes::Routes;
use crate::sources::Sources;
use crate::syncookies::Answered;
use crate::tenants::{self, Tenants};
use crate::uplinks::Offers;
use crate::ways::NextHop;
use crate::{Error, Plan, Step, WorkerSocket, devices, maglev, object, stats, syncookies};

/// What the object is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To forward packets.
    Forward,
    /// To explain packets: each verdict is written down.
    Explain,
}

/// The loaded object, its maps, and what they hold.
pub(crate) struct Kernel {
    pub(crate) ebpf: Ebpf,
    pub(crate) maps: Maps,
    pub(crate) image: Image,
    pub(crate) penalties: Penalties,
    /// The key that flows are hashed with, whatever seed the configuration has; `None`: the seed's.
    pub(crate) hash: Option<HashKey>,
    purpose: Purpose,
    sources: Sources,
    tenants: Tenants,
    /// The Maglev tables as they were written last.
    pub(crate) tables: BTreeMap<u16, Box<Table>>,
    /// Those of the process before, until they are written anew.
    pub(crate) inherited: Inherited,
    /// Limits under which the sources used their tokens, if they used any.
    limits: Option<flood::Limits>,
    /// Interfaces that forwarded packets may leave by.
    pub(crate) devices: BTreeSet<u32>,
    /// What answers to SYNs offer.
    pub(crate) offers: Offers,
    /// Next hops that are known, by the workers' addresses.
    pub(crate) hops: BTreeMap<IpAddr, NextHop>,
    /// Finds them; `None` where no interface has the program.
    pub(crate) next_hops: Option<NextHops>,
    /// The connection tables' buckets.
    buckets: [u32; 2],
    /// Drops of VIPs that are gone, whose counters may belong to others now.
    pub(crate) retired: Drops,
}

impl Kernel {
    /// Loads the object. With `pins` the maps that are handed on are those that a predecessor left there, and all
    /// others are new, so that its program goes on undisturbed.
    pub(crate) fn load(purpose: Purpose, pins: Option<&Pins>, flows: Flows) -> Result<Self, Error> {
        let explain = u8::from(purpose == Purpose::Explain);
        let mut loader = EbpfLoader::new();
        loader.override_global(names::EXPLAIN, &explain, true);
        let buckets = flows.buckets();
        loader.map_max_entries(names::CONNECTIONS4, buckets[0]);
        loader.map_max_entries(names::CONNECTIONS6, buckets[1]);
        if let Some(pins) = pins {
            for shape in names::handed_on(buckets) {
                loader.map_pin_path(shape.name, pins.handed_on(&shape)?);
            }
        }
        let mut ebpf = loader.load(object::TIER_1).map_err(Error::object)?;
        let mut image = Image::default();
        let (mut inherited, mut limits) = (Inherited::default(), None);
        if let Some(pins) = pins {
            inherited = Inherited::read(pins)?;
            limits = inherited::config(pins)?.and_then(|config| flood_limits(&config));
            pins.stage_maps(&ebpf)?;
            if let Some(tenants) = pins.tenants()? {
                (image.pools.members, image.vip_indexes) = tenants::read(&tenants)?;
            }
        }
        let mut maps = Maps::take(&mut ebpf)?;
        let penalties = match pins {
            Some(_) => Penalties::found(&mut maps)?,
            None => Penalties::default(),
        };
        // A new map is all zeroes, which would be worker 0 in every slot.
        let nobodys = maglev::build(&[]);
        for pool in 0..names::MAX_POOLS as u16 {
            maps.write_table(pool, &nobodys)?;
        }
        Ok(Self {
            ebpf,
            maps,
            image,
            tenants: Tenants::default(),
            penalties,
            hash: None,
            purpose,
            sources: Sources::default(),
            retired: Drops::default(),
            tables: BTreeMap::new(),
            inherited,
            limits,
            devices: BTreeSet::new(),
            offers: Offers::default(),
            hops: BTreeMap::new(),
            next_hops: None,
            buckets,
        })
    }

    /// Loads tier 1's XDP program, and the one that it leaves packets to.
    pub(crate) fn load_xdp(&mut self) -> Result<(), Error> {
        for name in [names::XDP_PROGRAM, names::GENERAL_PROGRAM] {
            let program: &mut Xdp = self.program(name)?;
            program.load().map_err(Error::program(name))?;
        }
        let general: &mut Xdp = self.program(names::GENERAL_PROGRAM)?;
        let general = general
            .fd()
            .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
            .map_err(Error::program(names::GENERAL_PROGRAM))?;
        self.maps.write_general(&general)
    }

    /// A program of the object, as its own type.
    pub(crate) fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, Error>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self
            .ebpf
            .program_mut(name)
            .ok_or(Error::MissingPart { part: name })?;
        program.try_into().map_err(Error::program(name))
    }

    /// Makes maps and routes what a configuration asks for. Should a step fail, those before it stay done, and
    /// the next call starts from there.
    pub(crate) fn reconcile(
        &mut self,
        desired: &DataPathConfig,
        sockets: &[WorkerSocket<'_>],
        mut routes: Option<&mut Routes>,
    ) -> Result<Plan, Error> {
        let mut next = self
            .image
            .next(desired, sockets, routes.is_some(), &own_addresses()?)?;
        next.config.hash = self.hash.unwrap_or(next.config.hash);
        if desired.syn_cookies.is_some() && self.purpose == Purpose::Forward {
            syncookies::prepare()?;
        }
        let answered = syncookies::answered(desired);
        if answered == Answered::ByRoute && self.purpose == Purpose::Forward {
            syncookies::open_own_routes();
        }
        let plan = Plan::between(&self.image, &next);
        // Before the first packet is written down for a new owner of an index.
        self.tenants.write(&mut self.maps, &next)?;
        // New names stand for the same indexes from now on; steps that fail are those of the maps.
        self.image.vip_indexes = next.vip_indexes.clone();
        self.image.listeners = next.listeners.clone();
        self.image.workers.clone_from(&next.workers);
        self.image.pools.indexes = next.pools.indexes.clone();
        self.image.pools.members = next.pools.members.clone();
        let hands_on = desired
            .tunnels
            .as_ref()
            .is_some_and(|tunnels| !tunnels.trusted.is_empty());
        let sends = !desired.pools.is_empty() || hands_on || answered == Answered::ByRoute;
        if (sends || answered != Answered::None) && self.purpose == Purpose::Forward {
            let devices = devices::all().map_err(|source| Error::Devices { source })?;
            if sends {
                self.allow_devices(&devices)?;
            }
            if let Some(next_hops) = &mut self.next_hops {
                next_hops.devices = devices;
            }
        }
        if answered != self.offers.answered {
            self.find_offers(answered)?;
            self.offers.answered = answered;
        }
        self.find_routes(&next.pools)?;
        let fds = descriptors(&next, sockets);
        for step in &plan.steps {
            self.apply(step, &next, &fds, routes.as_deref_mut())?;
        }
        // Pools that are gone have no claims, and their tables no readers.
        self.image
            .pools
            .claims
            .retain(|pool, _| next.pools.claims.contains_key(pool));
        self.tables.retain(|pool, _| next.pools.claims.contains_key(pool));
        self.inherited = Inherited::default();
        Ok(plan)
    }

    /// Lets forwarded packets leave by every one of the namespace's interfaces that can send them: where to is what routes
    /// say.
    pub(crate) fn allow_devices(&mut self, devices: &[Device]) -> Result<(), Error> {
        // The kernel has taken those that are gone out of the map.
        self.devices
            .retain(|index| devices.iter().any(|device| device.index == *index));
        for device in devices {
            let next_hops = self.next_hops.as_ref();
            if next_hops.is_none_or(|next_hops| next_hops.links().may_leave_by(device)) {
                self.allow_device(device.index)?;
            }
        }
        Ok(())
    }

    /// Lets forwarded packets leave by an interface, if there is room for one more.
    pub(crate) fn allow_device(&mut self, index: u32) -> Result<(), Error> {
        if self.devices.len() < names::MAX_DEVICES as usize && !self.devices.contains(&index) {
            self.maps.add_device(index)?;
            self.devices.insert(index);
        }
        Ok(())
    }

    /// Writes a penalty.
    pub(crate) fn penalise(&mut self, penalty: &Penalty) -> Result<(), Error> {
        if self.penalties.insert(&mut self.maps, penalty)? {
            self.write_config()?;
        }
        Ok(())
    }

    /// Writes the settings with the bits that the penalties set.
    pub(crate) fn write_config(&mut self) -> Result<(), Error> {
        let mut config = self.image.config;
        [config.connections4_mask, config.connections6_mask] = self.buckets.map(|buckets| buckets - 1);
        if !self.penalties.is_empty() {
            config.flags |= Config::HAS_PENALTIES;
            config.penalties = self.penalties.lengths();
        }
        if syncookies::uses_cookies(&config) {
            syncookies::complete(&mut config.syn_cookies, self.offers.back);
        }
        self.maps.write_config(&config)
    }

    /// Forgets the tokens that were used under other limits than those that are in force now, once these are written. A bucket
    /// is kept as the time at which it will be full, which with a slower rate may lie so far ahead that the new limit would
    /// admit nothing until then. `before` are the settings before.
    fn forget_tokens(&mut self, before: &Config) -> Result<(), Error> {
        let of_vips = |config: &Config| (config.syn_cookies.vip_limit, config.syn_cookies.unanswered);
        if before.has(Config::HAS_VIP_GUARDS) && of_vips(before) != of_vips(&self.image.config) {
            self.maps.forget_vip_tokens()?;
        }
        let Some(limits) = flood_limits(&self.image.config) else {
            return Ok(());
        };
        if self.limits.is_some_and(|before| before != limits) {
            self.maps.forget_sources()?;
        }
        self.limits = Some(limits);
        Ok(())
    }

    fn apply(
        &mut self,
        step: &Step,
        next: &Image,
        fds: &BTreeMap<u32, BorrowedFd<'_>>,
        routes: Option<&mut Routes>,
    ) -> Result<(), Error> {
        match *step {
            Step::RemoveRoute(address) => {
                with_routes(routes, |routes| routes.remove(address))?;
                self.image.routes.remove(&address);
            }
            Step::ForgetVip(index) => {
                let drops = stats::drops(&self.maps, Some(index))?;
                self.maps.forget_vip(index)?;
                self.retired = stats::add(self.retired, &drops);
            }
            Step::ForgetWorker(index) => self.maps.forget_worker(index)?,
            Step::AddSources => self.sources.add(&mut self.maps, &next.sources)?,
            Step::WriteReflectionPorts => {
                self.maps.write_reflection_ports(&next.reflection_ports)?;
                self.image.reflection_ports.clone_from(&next.reflection_ports);
            }
            Step::WriteTunnelPeers => {
                self.maps.write_tunnel_peers(&next.tunnel_peers)?;
                self.image.tunnel_peers = next.tunnel_peers;
            }
            Step::RemoveSources => {
                self.sources.remove(&mut self.maps, &next.sources)?;
                self.image.sources = Arc::clone(&next.sources);
            }
            Step::SetSocket(index, id) => {
                if let Some(&fd) = fds.get(&index) {
                    self.maps.set_socket(index, fd)?;
                    self.image.sockets.insert(index, id);
                }
            }
            Step::WriteWorker(index, entry) => {
                self.write_worker(index, entry)?;
                self.image.pools.workers.insert(index, entry);
                if entry.state == worker::ABSENT {
                    self.image.pools.workers.remove(&index);
                }
            }
            Step::WriteTable(pool) => {
                let claims = next.pools.claims.get(&pool).cloned().unwrap_or_default();
                let inherited = match self.tables.get(&pool) {
                    Some(_) => None,
                    None => self.inherited.table(&claims, &next.pools.workers),
                };
                let before = self.tables.get(&pool).or(inherited.as_ref());
                let table = maglev::successor(&claims, before.map(Box::as_ref));
                self.maps.write_table(pool, &table)?;
                self.tables.insert(pool, table);
                self.image.pools.claims.insert(pool, claims);
            }
            Step::WritePrefix(key, bits) => {
                self.maps.write_prefix(&key, bits)?;
                self.image.vip_prefixes.insert(key, bits);
            }
            Step::RemovePrefix(key) => {
                self.maps.remove_prefix(&key)?;
                self.image.vip_prefixes.remove(&key);
            }
            Step::WriteVip(key, entry) => {
                self.maps.write_vip(&key, entry)?;
                self.image.vips.insert(key, entry);
            }
            Step::WriteConfig => {
                let before = std::mem::replace(&mut self.image.config, next.config);
                self.write_config()?;
                self.forget_tokens(&before)?;
            }
            Step::RemoveVip(key) => {
                self.maps.remove_vip(&key)?;
                self.image.vips.remove(&key);
            }
            Step::ClearSocket(index, _) => {
                self.maps.clear_socket(index)?;
                self.image.sockets.remove(&index);
            }
            Step::AddRoute(address) => {
                with_routes(routes, |routes| routes.add(address))?;
                self.image.routes.insert(address);
            }
        }
        Ok(())
    }

    /// A part of the connection table, from a place on.
    pub(crate) fn connections(&self, first: u32) -> Result<ConnectionPage, Error> {
        connections::page(&self.maps, &self.image, self.buckets, first)
    }

    /// Addresses whose routes this object's owner added or found.
    pub(crate) fn routed(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.image.routes.iter().copied()
    }
}

/// Addresses on the interfaces of this network namespace.
fn own_addresses() -> Result<BTreeSet<IpAddr>, Error> {
    let address = |interface: InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let interfaces = getifaddrs().map_err(|source| Error::OwnAddresses {
        source: source.into(),
    })?;
    Ok(interfaces.filter_map(address).collect())
}

fn with_routes(
    routes: Option<&mut Routes>,
    change: impl FnOnce(&mut Routes) -> Result<(), Error>,
) -> Result<(), Error> {
    routes.map_or(Ok(()), change)
}

fn descriptors<'fd>(image: &Image, sockets: &[WorkerSocket<'fd>]) -> BTreeMap<u32, BorrowedFd<'fd>> {
    let place = |socket: &WorkerSocket<'fd>| {
        let listener = image.listeners.get(&socket.listener())?;
        Some((socket_index(listener, u32::from(socket.worker.0)), socket.fd))
    };
    sockets.iter().filter_map(place).collect()
}

/// The limits of each source, if there are any.
fn flood_limits(config: &Config) -> Option<flood::Limits> {
    config.has(Config::HAS_FLOOD_LIMITS).then_some(config.flood)
}
