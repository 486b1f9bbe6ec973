//! Answers what becomes of a packet, and why, by running it through the real program.

use std::net::IpAddr;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use edge_common::cursor::Slice;
use edge_common::maps as names;
use edge_common::verdict::Trace;
use edge_common::{DropReason, Verdict, parse};
use edge_model::{DataPathConfig, Penalty, WorkerId};

use crate::flows::Flows;
use crate::image::{MemberId, VipId};
use crate::kernel::{Kernel, Purpose};
use crate::ways::{Ingress, Links};
use crate::{Error, NextHop, Plan, devices};

/// Shortest frame that the kernel runs a program on: an Ethernet header (`bpf_prog_test_run_xdp`).
const SHORTEST: usize = 14;
/// Room for a frame that grew, should a program prepend headers.
const OUTPUT: usize = 4096;

/// What the interface does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A fault of the program.
    Aborted,
    /// The packet is dropped.
    Drop,
    /// The packet goes up the stack.
    Pass,
    /// The packet leaves by the interface it came in by.
    Tx,
    /// The packet leaves by another interface.
    Redirect,
}

impl Action {
    /// Name in the kernel's header, for example `XDP_PASS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "XDP_ABORTED",
            Self::Drop => "XDP_DROP",
            Self::Pass => "XDP_PASS",
            Self::Tx => "XDP_TX",
            Self::Redirect => "XDP_REDIRECT",
        }
    }

    /// From the program's return value (`enum xdp_action`); the driver takes unknown ones as aborted.
    const fn from_return(value: u32) -> Self {
        match value {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            _ => Self::Aborted,
        }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What the interface does with it.
    pub action: Action,
    /// Name of the reason; `deliver` for a packet to a worker of this node, `forward` for one to a worker elsewhere,
    /// `hand_on` for one that a load balancer sent here and another worker may have.
    pub reason: &'static str,
    /// Of a forwarded packet: how its worker was found.
    pub flow: Option<&'static str>,
    /// The VIP that it was for, where that is known.
    pub vip: Option<VipId>,
    /// The worker that it goes to.
    pub worker: Option<WorkerId>,
    /// The same, if it is a pool's.
    pub member: Option<MemberId>,
    /// The frame as it leaves the program.
    pub packet_out: Vec<u8>,
}

/// Runs packets through the program without an interface.
///
/// The program is the one that [`DataPath`](crate::DataPath) attaches, loaded once more with maps of its own, so
/// nothing that it does is seen by the traffic. Its state (buckets, counters) carries over from one packet to the
/// next, as on the wire.
pub struct Explainer {
    kernel: Kernel,
    program: &'static str,
}

impl Explainer {
    /// Loads the program.
    ///
    /// # Errors
    /// The user may not load BPF programs, or the kernel refuses this one.
    pub fn load() -> Result<Self, Error> {
        let mut kernel = Kernel::load(Purpose::Explain, None, Flows::FEW)?;
        kernel.load_xdp()?;
        Ok(Self {
            kernel,
            program: names::XDP_PROGRAM,
        })
    }

    /// Loads the program, to give every packet to the part of it that is written for packets that are not ordinary.
    /// Answers must be the same.
    ///
    /// # Errors
    /// As [`Explainer::load`].
    pub fn load_general() -> Result<Self, Error> {
        Ok(Self {
            program: names::GENERAL_PROGRAM,
            ..Self::load()?
        })
    }

    /// Makes the maps what a configuration asks for.
    ///
    /// # Errors
    /// The configuration does not fit the maps, or the kernel refuses a change.
    pub fn configure(&mut self, desired: &DataPathConfig) -> Result<Plan, Error> {
        self.kernel.reconcile(desired, &[], None)
    }

    /// Says what the routes to a worker's address say: an explainer has no interface that packets come by, to ask them.
    ///
    /// # Errors
    /// The kernel refuses the entry.
    pub fn set_next_hop(&mut self, address: IpAddr, hop: NextHop) -> Result<(), Error> {
        self.kernel.pretend(address, hop)
    }

    /// Lets what was said of routes grow old, as if nobody had looked at them for long: each packet asks the kernel for itself.
    ///
    /// # Errors
    /// The kernel refuses the entry.
    pub fn forget_next_hops(&mut self) -> Result<(), Error> {
        // Timer ticks are counted from the kernel's start on.
        self.kernel.maps.write_watched_until(0)
    }

    /// Says that the program is attached to these interfaces, of those that there are: by them answers leave to packets that
    /// came by tunnels.
    ///
    /// # Errors
    /// The kernel does not say which interfaces there are, or refuses an entry.
    pub fn set_interfaces(&mut self, names: &[String]) -> Result<(), Error> {
        let devices = devices::all().map_err(|source| Error::Devices { source })?;
        let named = devices.iter().filter(|device| names.contains(&device.name));
        let ingress: Vec<_> = named
            .map(|device| Ingress {
                device: device.index,
                is_native: false,
            })
            .collect();
        self.kernel.answer_by(Links {
            devices: &devices,
            ingress: &ingress,
        })
    }

    /// Gives a source a penalty, so that its packets can be explained.
    ///
    /// # Errors
    /// There are too many, or the kernel refuses the entry.
    pub fn penalise(&mut self, penalty: &Penalty) -> Result<(), Error> {
        self.kernel.penalise(penalty)
    }

    /// Runs one frame, from its Ethernet header on.
    ///
    /// The kernel runs no program on less than an Ethernet header (no interface would deliver it either); for such
    /// a frame the answer comes from the parser that the program was compiled from.
    ///
    /// # Errors
    /// The kernel refuses the frame, as it does above a page (about 3.5 kB).
    pub fn run(&mut self, frame: &[u8]) -> Result<Explanation, Error> {
        if frame.len() < SHORTEST {
            return Ok(self.parse_alone(frame));
        }
        self.kernel.maps.clear_trace()?;
        let mut output = [0; OUTPUT];
        let program: &mut Xdp = self.kernel.program(self.program)?;
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut output),
                ..Default::default()
            })
            .map_err(|source| Error::TestRun {
                len: frame.len(),
                source: Box::new(source),
            })?;
        let packet_out = output
            .get(..result.data_size_out as usize)
            .unwrap_or_default()
            .to_vec();
        let trace = self.kernel.maps.trace()?;
        Ok(self.explanation(
            Action::from_return(result.return_value),
            trace.verdict(),
            packet_out,
        ))
    }

    fn parse_alone(&self, frame: &[u8]) -> Explanation {
        let verdict = match parse::network(&mut Slice::new(frame)) {
            Err(verdict) => verdict,
            // Not to be reached: without an Ethernet header there is nothing to parse.
            Ok(_) => Verdict::drop(DropReason::TruncatedEthernet),
        };
        let action = match verdict {
            Verdict::Pass(_) | Verdict::Deliver { .. } => Action::Pass,
            Verdict::Forward { .. } | Verdict::Reply { .. } => Action::Tx,
            Verdict::Drop { .. } => Action::Drop,
        };
        self.explanation(action, Some(verdict), frame.to_vec())
    }

    fn explanation(&self, action: Action, verdict: Option<Verdict>, packet_out: Vec<u8>) -> Explanation {
        let (reason, vip, worker) = match verdict {
            Some(Verdict::Pass(reason)) => (reason.name(), None, None),
            Some(Verdict::Deliver { vip, worker, .. }) => {
                ("deliver", Some(vip), Some(WorkerId(worker as u16)))
            }
            Some(Verdict::Forward { vip: Trace::NONE, .. }) => ("hand_on", None, None),
            Some(Verdict::Forward { vip, worker, .. }) => {
                ("forward", Some(vip), Some(WorkerId(worker as u16)))
            }
            Some(Verdict::Reply { reason, vip }) => (reason.name(), Some(vip), None),
            Some(Verdict::Drop { reason, vip }) => (reason.name(), vip, None),
            None => ("no_verdict", None, None),
        };
        let vip = vip.and_then(|index| self.kernel.image.vip_at(index));
        let flow = match verdict {
            Some(Verdict::Forward { flow, .. }) => Some(flow.name()),
            Some(
                Verdict::Pass(_) | Verdict::Deliver { .. } | Verdict::Reply { .. } | Verdict::Drop { .. },
            )
            | None => None,
        };
        Explanation {
            action,
            reason,
            flow,
            vip,
            member: worker.and_then(|worker| self.kernel.image.member(worker)),
            worker,
            packet_out,
        }
    }
}

/// A trace that no verdict has, so that an answer of an earlier packet is never taken for this one's.
const _: () = assert!(
    Trace::PASS != 0 && Trace::DELIVER != 0 && Trace::DROP != 0 && Trace::REPLY != 0 && Trace::FORWARD != 0
);
