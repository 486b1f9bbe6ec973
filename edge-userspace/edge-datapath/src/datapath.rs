//! The data path as the process owns it.

use aya::programs::links::FdLink;
use aya::programs::{SkLookup, Xdp};
use edge_common::maps as names;
use edge_model::{DataPathConfig, Penalty};

use crate::attach::{self, Attachment, InterfaceStatus, XdpMode};
use crate::kernel::{Kernel, Purpose};
use crate::log_bridge::{self, BpfLog};
use crate::routes::Routes;
use crate::stats::{self, Stats};
use crate::{Error, PenaltyStatus, Plan, WorkerSocket};

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
}

/// The loaded and attached programs with their maps.
///
/// Dropping it detaches everything; [`DataPath::detach`] does the same and says what failed. It may be moved to
/// another thread, but works on routes of the namespace of the thread that calls.
pub struct DataPath {
    kernel: Kernel,
    routes: Option<Routes>,
    attachments: Vec<Attachment>,
    #[expect(dead_code, reason = "it is held for its drop, which detaches the program")]
    steering: FdLink,
    log: Option<BpfLog>,
}

impl DataPath {
    /// Loads the programs and attaches them in the calling thread's network namespace. Until the first
    /// [`DataPath::reconcile`] every packet passes.
    ///
    /// Local routes that an earlier process left behind, because it was killed, are removed.
    ///
    /// # Errors
    /// The user may not load BPF programs, the kernel refuses one, or an interface cannot take it. Nothing stays
    /// attached then.
    pub fn load(options: LoadOptions) -> Result<Self, Error> {
        let mut kernel = Kernel::load(Purpose::Forward)?;
        let xdp: &mut Xdp = kernel.program(names::XDP_PROGRAM)?;
        xdp.load().map_err(Error::program(names::XDP_PROGRAM))?;
        let steer: &mut SkLookup = kernel.program(names::STEER_PROGRAM)?;
        steer.load().map_err(Error::program(names::STEER_PROGRAM))?;
        let routes = if options.manage_local_routes {
            Some(Routes::open()?)
        } else {
            None
        };
        let log = log_bridge::open(&mut kernel.ebpf);
        let steering = attach::steering(&mut kernel)?;
        let attachments = options
            .interfaces
            .iter()
            .map(|name| attach::interface(&mut kernel, name, options.mode))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            kernel,
            routes,
            attachments,
            steering,
            log,
        })
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
        self.kernel.reconcile(desired, sockets, self.routes.as_mut())
    }

    /// Drops a source's packets to the virtual addresses until the penalty ends.
    ///
    /// # Errors
    /// There are too many penalties, or the kernel refuses the entry.
    pub fn penalise(&mut self, penalty: &Penalty) -> Result<(), Error> {
        let was_empty = self.kernel.penalties.is_empty();
        self.kernel.penalties.insert(&mut self.kernel.maps, penalty)?;
        if was_empty {
            self.kernel.write_config()
        } else {
            Ok(())
        }
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
        if !ended.is_empty() && self.kernel.penalties.is_empty() {
            self.kernel.write_config()?;
        }
        Ok(ended)
    }

    /// Counters, added up over all CPUs.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        stats::read(&self.kernel.maps, &self.kernel.image, self.interfaces())
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

    /// Detaches the programs and removes the routes that this data path added.
    ///
    /// # Errors
    /// A route could not be removed; everything else is gone nevertheless.
    pub fn detach(mut self) -> Result<(), Error> {
        self.drain_log();
        self.remove_routes()
    }

    /// Removes every route, and returns the first failure.
    fn remove_routes(&mut self) -> Result<(), Error> {
        let Some(mut routes) = self.routes.take() else {
            return Ok(());
        };
        let addresses: Vec<_> = self.kernel.routed().collect();
        let results: Vec<_> = addresses
            .into_iter()
            .map(|address| routes.remove(address))
            .collect();
        results.into_iter().collect()
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        if let Err(error) = self.remove_routes() {
            tracing::warn!("{error}");
        }
    }
}
