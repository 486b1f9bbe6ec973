//! Tier 1's program on no interface.

use aya::programs::{ProgramFd, Xdp};
use edge_common::maps as names;
use edge_model::{DataPathConfig, Penalty};

use crate::flows::Flows;
use crate::kernel::{Kernel, Purpose};
use crate::stats::{self, Stats};
use crate::{Error, Plan};

/// The XDP program as [`DataPath`](crate::DataPath) attaches it, loaded with maps of its own and attached to nothing:
/// whoever holds its descriptor decides what packets it sees. Benchmarks run it so.
pub struct Detached {
    kernel: Kernel,
}

impl Detached {
    /// Loads the program, with a connection table for so many flows.
    ///
    /// # Errors
    /// The user may not load BPF programs, or the kernel refuses this one.
    pub fn load(flows: Flows) -> Result<Self, Error> {
        let mut kernel = Kernel::load(Purpose::Forward, None, flows)?;
        kernel.load_xdp()?;
        Ok(Self { kernel })
    }

    /// Makes the maps what a configuration asks for.
    ///
    /// # Errors
    /// The configuration does not fit the maps, or the kernel refuses a change.
    pub fn configure(&mut self, desired: &DataPathConfig) -> Result<Plan, Error> {
        self.kernel.reconcile(desired, &[], None)
    }

    /// Gives a source a penalty.
    ///
    /// # Errors
    /// There are too many, or the kernel refuses the entry.
    pub fn penalise(&mut self, penalty: &Penalty) -> Result<(), Error> {
        self.kernel.penalise(penalty)
    }

    /// Counters, added up over all CPUs.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        let Kernel {
            maps, image, retired, ..
        } = &self.kernel;
        stats::read(maps, image, retired, Vec::new(), None)
    }

    /// Instructions that the verifier walked through, of the program that took the most; it gives up at a million.
    ///
    /// # Errors
    /// The object has no such program, or it is not loaded.
    pub fn verified_instructions(&mut self) -> Result<Option<u32>, Error> {
        let mut most = None;
        for name in [names::XDP_PROGRAM, names::GENERAL_PROGRAM] {
            let program: &mut Xdp = self.kernel.program(name)?;
            let info = program.info().map_err(Error::program(name))?;
            most = most.max(info.verified_instruction_count());
        }
        Ok(most)
    }

    /// Descriptor of the program.
    ///
    /// # Errors
    /// The object has no such program, or it is not loaded.
    pub fn program(&mut self) -> Result<&ProgramFd, Error> {
        let program: &mut Xdp = self.kernel.program(names::XDP_PROGRAM)?;
        program.fd().map_err(Error::program(names::XDP_PROGRAM))
    }
}
