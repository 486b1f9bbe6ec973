//! The data path as the process owns it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::SkLookup;
use edge_common::maps as names;
use edge_model::{DataPathConfig, Penalty, Pool};

use crate::attach::{self, Attachment, InterfaceStatus, XdpMode};
use crate::connections::ConnectionPage;
use crate::devices;
use crate::events::{self, DropEvent};
use crate::flows::Flows;
use crate::image::{Digest as _, MemberId};
use crate::kernel::{Kernel, Purpose};
use crate::log_bridge::{self, BpfLog};
use crate::next_hops::NextHops;
use crate::pins::{Link, OnStop, Pinning, Pins};
use crate::pools::member_name;
use crate::routes::Routes;
use crate::stats::{self, CoreStats, Stats};
use crate::{Error, PenaltyStatus, Plan, WorkerSocket, inherited};

/// How the data path is to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Interfaces whose packets it judges. Without any, socket selection alone is at work.
    pub interfaces: Vec<String>,
    /// How XDP is attached.
    pub mode: XdpMode,
    /// Add a local route for each virtual address that is not local already, so that the kernel takes its packets
    /// without the address on an interface.
    pub manage_local_routes: bool,
    /// Where links and maps are pinned, so that packets are judged on if the process is killed, and the next one takes
    /// over without losing any. Without it, the kernel detaches the programs with the process's end.
    pub pinning: Option<Pinning>,
    /// Flows of clients to VIPs with workers elsewhere that are remembered.
    pub flows: Flows,
    /// Nobody chose [`DataPathConfig::hash_seed`]: where an earlier process left pins, flows are hashed with its key, so
    /// that they stay with their workers.
    pub inherits_hash_key: bool,
}

/// The loaded and attached programs with their maps.
///
/// Dropping it detaches everything that is not pinned; [`DataPath::detach`] ends the pins, too, and says what failed. It
/// may be moved to another thread, but works on routes of the namespace of the thread that calls.
pub struct DataPath {
    kernel: Kernel,
    routes: Option<Routes>,
    attachments: Vec<Attachment>,
    steering: Link,
    pins: Option<Pins>,
    /// The pins are this process's own, and nobody else's are left.
    is_settled: bool,
    log: Option<BpfLog>,
}

impl DataPath {
    /// Loads the programs and attaches them in the calling thread's network namespace. Until the first
    /// [`DataPath::reconcile`] every packet passes; but where an earlier process left a pinned link, its program goes
    /// on until then, and is replaced when the new one's maps are complete.
    ///
    /// Local routes that an earlier process left behind, because it was killed, stay until then, too.
    ///
    /// # Errors
    /// The user may not load BPF programs, the kernel refuses one, or an interface cannot take it. Nothing stays
    /// attached then.
    pub fn load(options: LoadOptions) -> Result<Self, Error> {
        let pins = options.pinning.as_ref().map(Pins::open).transpose()?;
        let mut kernel = Kernel::load(Purpose::Forward, pins.as_ref(), options.flows)?;
        if let Some(pins) = pins.as_ref().filter(|_| options.inherits_hash_key) {
            kernel.hash = inherited::hash_key(pins)?;
        }
        kernel.load_xdp()?;
        let steer: &mut SkLookup = kernel.program(names::STEER_PROGRAM)?;
        steer.load().map_err(Error::program(names::STEER_PROGRAM))?;
        let routes = if options.manage_local_routes {
            Some(Routes::open()?)
        } else {
            None
        };
        let log = log_bridge::open(&mut kernel.ebpf);
        let steering = attach::steering(&mut kernel, pins.as_ref())?;
        let devices = devices::all().map_err(|source| Error::Devices { source })?;
        let mut attachments = Vec::new();
        for name in &options.interfaces {
            let (mode, pins) = (options.mode, pins.as_ref());
            attachments.push(attach::interface(
                &mut kernel,
                &devices,
                &attachments,
                name,
                mode,
                pins,
            )?);
        }
        let ingress = attachments.iter().flat_map(|attachment| &attachment.hooks);
        let ingress = ingress.filter_map(|hook| hook.ingress(&devices)).collect();
        kernel.follow_routes(ingress)?;
        Ok(Self {
            kernel,
            routes,
            attachments,
            steering,
            pins,
            is_settled: false,
            log,
        })
    }

    /// Workers of a configuration's pools that an earlier process, whose pins these are, left down: because they did not
    /// answer, as a rule. It is known until the first [`DataPath::reconcile`].
    #[must_use]
    pub fn inherited_down(&self, desired: &DataPathConfig) -> Vec<MemberId> {
        let of_pool = |pool: &Pool| {
            let names = pool.members.iter().map(|member| member_name(&pool.name, member));
            names.collect::<Vec<_>>()
        };
        let names = desired.pools.iter().flat_map(of_pool);
        let down = names.filter(|name| self.kernel.inherited.was_down(name.digest()));
        down.map(MemberId::from).collect()
    }

    /// Makes maps and routes what a configuration and the workers' sockets ask for, and returns the steps that
    /// were taken. Established connections are not touched.
    ///
    /// `sockets` is the whole set: one that is missing is taken out of the selection.
    ///
    /// # Errors
    /// The configuration does not fit the maps, and nothing was changed; or the kernel refuses a step, and those
    /// before it are done. Calling again goes on from there.
    pub fn reconcile(
        &mut self,
        desired: &DataPathConfig,
        sockets: &[WorkerSocket<'_>],
    ) -> Result<Plan, Error> {
        let plan = self.kernel.reconcile(desired, sockets, self.routes.as_mut())?;
        self.take_over()?;
        if let Some(routes) = &mut self.routes {
            routes.remove_inherited()?;
        }
        Ok(plan)
    }

    /// Replaces the programs of an earlier process, now that the maps of these are complete.
    fn take_over(&mut self) -> Result<(), Error> {
        let Some(pins) = &self.pins else { return Ok(()) };
        // First, because the process may be killed in between. Its indexes go on from its predecessor's, so they are good to
        // go on from whichever program is left at work; those of the predecessor know nothing of what this one gave away.
        pins.promote_maps()?;
        attach::steering_takes_over(&mut self.kernel, &mut self.steering, pins)?;
        for hook in self
            .attachments
            .iter_mut()
            .flat_map(|attachment| &mut attachment.hooks)
        {
            hook.take_over(&mut self.kernel)?;
        }
        if !self.is_settled {
            let hooks = self.attachments.iter().flat_map(|attachment| &attachment.hooks);
            let links = hooks.map(|hook| &hook.link);
            let files: Vec<_> = links.chain([&self.steering]).filter_map(Link::file).collect();
            pins.remove_others(&files)?;
            self.steering.settle();
            for hook in self
                .attachments
                .iter_mut()
                .flat_map(|attachment| &mut attachment.hooks)
            {
                hook.link.settle();
            }
            self.is_settled = true;
        }
        Ok(())
    }

    /// Drops a source's packets to the virtual addresses, or slows them down, until the penalty ends.
    ///
    /// # Errors
    /// There are too many penalties, or the kernel refuses the entry.
    pub fn penalise(&mut self, penalty: &Penalty) -> Result<(), Error> {
        self.kernel.penalise(penalty)
    }

    /// Penalties that have not been removed, by source.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn penalties(&self) -> Result<Vec<PenaltyStatus>, Error> {
        self.kernel.penalties.list(&self.kernel.maps)
    }

    /// Removes the penalties that have ended, and returns them with their last count. The data path ends them by
    /// itself; this frees their memory, and once a second is often enough.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn expire(&mut self) -> Result<Vec<PenaltyStatus>, Error> {
        let ended = self.kernel.penalties.expire(&mut self.kernel.maps)?;
        if !ended.is_empty() {
            self.kernel.write_config()?;
        }
        Ok(ended)
    }

    /// Keeps the next hops of workers elsewhere true, and their MAC addresses known, and the MSS that answers to SYNs offer: by
    /// what the kernel has told of routes, neighbours and links since the last call, and by looking at all of it if that was
    /// not done for a second. For five seconds after the last call packets go where it said; then each asks by itself, which
    /// takes longer.
    ///
    /// # Errors
    /// The kernel cannot be asked, or refuses an entry.
    pub fn keep_routes(&mut self) -> Result<(), Error> {
        self.kernel.keep_routes()
    }

    /// What can be read whenever [`DataPath::keep_routes`] has something to do before the next second.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn route_news(&self) -> io::Result<Option<OwnedFd>> {
        let next_hops = self.kernel.next_hops.as_ref();
        let socket = next_hops.map(|next_hops| next_hops.news().socket().as_fd());
        socket.map(|socket| socket.try_clone_to_owned()).transpose()
    }

    /// Counters, added up over all CPUs.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let Kernel {
            maps, image, retired, ..
        } = &self.kernel;
        let next_hops = self.kernel.next_hops.as_ref();
        stats::read(maps, image, retired, self.interfaces(), next_hops)
    }

    /// What each core has done with packets since the programs were loaded, the first core first.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn cores(&self) -> Result<Vec<CoreStats>, Error> {
        stats::cores(&self.kernel.maps, &self.kernel.image)
    }

    /// A part of what the connection table holds, from a place on: 0, or where the last part ended.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn connections(&self, first: u32) -> Result<ConnectionPage, Error> {
        self.kernel.connections(first)
    }

    /// Workers of a pool that have not a slot of its Maglev table but had it last, by their addresses, each with the number
    /// of such slots: those that connections may be handed on to.
    #[must_use]
    pub fn previous_owners(&self, pool: &str) -> BTreeMap<IpAddr, usize> {
        let mut owners = BTreeMap::new();
        let Kernel { image, tables, .. } = &self.kernel;
        let index = image.pools.indexes.iter().find(|(name, _)| &***name == pool);
        let table = index.and_then(|(_, index)| tables.get(&index));
        for slot in table.iter().flat_map(|table| &table.slots) {
            if let Some((_, _, address, _)) = image.pools.member_at(slot.previous) {
                *owners.entry(*address).or_default() += 1;
            }
        }
        owners
    }

    /// Samples of the packets that were dropped since the last call: of each reason one in each timer tick of each CPU.
    /// What nobody fetches for seconds is lost. Ten times a second is often enough.
    pub fn events(&mut self) -> Vec<DropEvent> {
        events::fetch(&mut self.kernel.maps.events, &self.kernel.image)
    }

    /// Interfaces, and how XDP is attached to them.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.attachments
            .iter()
            .map(|attachment| attachment.status.clone())
            .collect()
    }

    /// Hands messages that the BPF programs wrote since the last call to `tracing`, target `edge_ebpf`. They
    /// are few (one a second and CPU of each kind); once a second is often enough.
    pub fn drain_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Detaches the programs, removes the routes that this data path added, and leaves the neighbours to the kernel. Pinned
    /// programs stay, with the routes and neighbours that they need, if they are to be kept, and if another process has
    /// taken them over.
    ///
    /// # Errors
    /// A route or pin could not be removed; everything else is gone nevertheless.
    pub fn detach(mut self) -> Result<(), Error> {
        self.drain_log();
        let Some(on_stop) = self.pins.as_ref().map(|pins| pins.on_stop) else {
            return self.remove_routes();
        };
        if on_stop == OnStop::Keep || !self.is_in_force()? {
            tracing::info!("the programs stay attached");
            return Ok(());
        }
        let removed = self.remove_routes();
        let unpinned = self.pins.take().map_or(Ok(()), |pins| pins.remove_all());
        removed.and(unpinned)
    }

    /// Whether the socket selection, which there is one of in a namespace, is this process's.
    fn is_in_force(&mut self) -> Result<bool, Error> {
        let program: &mut SkLookup = self.kernel.program(names::STEER_PROGRAM)?;
        let info = program.info().map_err(Error::program(names::STEER_PROGRAM))?;
        Ok(self.steering.holds(info.id()))
    }

    /// Removes every route, leaves the neighbours to the kernel, and returns the first failure.
    fn remove_routes(&mut self) -> Result<(), Error> {
        let released = self.kernel.next_hops.as_mut().map_or(Ok(()), NextHops::release);
        let Some(mut routes) = self.routes.take() else {
            return released;
        };
        let addresses: Vec<_> = self.kernel.routed().collect();
        let results: Vec<_> = addresses
            .into_iter()
            .map(|address| routes.remove(address))
            .collect();
        results.into_iter().collect::<Result<(), _>>().and(released)
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        // Pinned programs go on, and need their routes and neighbours.
        if self.pins.is_none()
            && let Err(error) = self.remove_routes()
        {
            tracing::warn!("{error}");
        }
    }
}
