//! What one stage hands to the next.
//!
//! A program whose stages are all inlined is verified once for each way through all of them together, which the
//! verifier gives up on. So the pipeline is cut into functions of C linkage, each of which the verifier looks at once;
//! they can be given numbers alone, and everything else about the packet lies here.

use edge_common::parse::{Network, Transport};
use edge_common::verdict::Trace;
use edge_common::vip::Entry;
use edge_common::{Config, FlowReason};

use crate::maps;

/// The packet in work. One for each CPU: nothing interrupts the program to run another.
pub(crate) struct Packet {
    /// Its IP header.
    pub(crate) network: Network,
    /// Its transport header.
    pub(crate) transport: Transport,
    /// The VIP that it is for, if `is_service` is not 0.
    pub(crate) vip: Entry,
    /// 0: it is for a port that no VIP has.
    pub(crate) is_service: u32,
    /// Where the IP header begins.
    pub(crate) network_at: u32,
    /// Where the transport header begins.
    pub(crate) transport_at: u32,
    /// Length of the frame.
    pub(crate) frame_len: u32,
    /// How it came: [`DIRECT`] and its sisters. Only kept where tunnels end ([`came`]).
    pub(crate) came: u32,
    /// The tunnel that it came by, if that holds another.
    pub(crate) around: Around,
    /// Index of the worker that it goes to.
    pub(crate) worker: u32,
    /// Largest packet of its sender that would have fitted, if it did not.
    pub(crate) limit: u32,
    /// Not 0: the flow's first packet was not seen here, so that worker may not be the one that has it.
    pub(crate) is_adopted: u32,
    /// How the worker was found.
    pub(crate) flow: FlowReason,
    /// Hash of the flow: outer source address, port and flow label are made of it.
    pub(crate) hash: u64,
    /// The way to the next hop.
    pub(crate) route: Route,
    /// What becomes of it, for [`SETTLE`].
    pub(crate) verdict: Trace,
    /// Other than 0: the stages have let the packet through on the short way.
    pub(crate) skips_stages: u32,
}

/// The packet came as it is.
pub(crate) const DIRECT: u32 = 0;
/// It was taken out of a tunnel that ends here: a balancer chose this node for it, which chooses no other.
pub(crate) const FOR_THIS_NODE: u32 = 1;
/// It was taken out of a tunnel to a relay: it is balanced as if it came from the client, but what answers it cannot leave
/// by the way it came.
pub(crate) const RELAYED: u32 = 2;

/// How the packet in work came. Without a branch, so that the verifier does not follow what comes after once for each answer.
#[inline(always)]
pub(crate) const fn came(config: &Config, packet: &Packet) -> u32 {
    let has_tunnels = (config.flags / Config::HAS_TUNNELS) & 1;
    packet.came & (has_tunnels | (has_tunnels << 1))
}

/// 1 if a packet to a VIP or marker with these flags, which came so, may go to a worker elsewhere; else 0. Likewise without
/// a branch.
#[inline(always)]
pub(crate) const fn forwards(flags: u32, came: u32) -> u32 {
    (flags / Entry::FORWARDS) & 1 & !(came & FOR_THIS_NODE)
}

/// What a function of the pipeline answers if the verdict that it wrote down is to be settled.
pub(crate) const SETTLE: u32 = u32::MAX - 1;

/// Writes a verdict down for the caller to settle, because all functions that are at work at a time share a stack of 512
/// bytes.
#[inline(always)]
pub(crate) fn settle_later(verdict: Trace, bytes: u64) -> u32 {
    if let Some(packet) = packet() {
        // SAFETY: the element is this CPU's alone.
        unsafe {
            (*packet).verdict = verdict;
            (*packet).frame_len = bytes as u32;
        }
    }
    SETTLE
}

/// What is known of a tunnel: `edge_common::decap::Outer`, in numbers as wide as a register.
#[derive(Clone, Copy)]
pub(crate) struct Around {
    /// Length of the link header.
    pub(crate) link_len: u32,
    /// Length of the tunnel's headers.
    pub(crate) len: u32,
    /// Bytes behind them.
    pub(crate) payload_len: u32,
    /// Congestion mark.
    pub(crate) ecn: u32,
    /// Not 0: what it holds is IPv6.
    pub(crate) is_inner_v6: u32,
}

/// Where a forwarded packet leaves.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    /// Index of the interface; 0: the one it came in by.
    pub(crate) interface: u32,
    /// MAC address of the next hop, and the one to leave from.
    pub(crate) macs: [u16; 6],
    /// Not 0: no router is on the way.
    pub(crate) is_direct: u32,
    /// Of an answer to a client: largest segment that the node would offer on the way.
    pub(crate) mss: u32,
}

/// This CPU's packet.
#[inline(always)]
pub(crate) fn packet() -> Option<*mut Packet> {
    maps::PACKET.get_ptr_mut(0)
}

/// Notes that the stages have let the packet through, and are not to be asked again.
#[inline(always)]
pub(crate) fn skip_stages() {
    if let Some(packet) = packet() {
        // SAFETY: the element is this CPU's alone.
        unsafe { (*packet).skips_stages = 1 };
    }
}

/// Whether [`skip_stages`] was noted for this packet. It is not for the next.
#[inline(always)]
pub(crate) fn skips_stages() -> bool {
    let Some(packet) = packet() else { return false };
    // SAFETY: the element is this CPU's alone.
    unsafe {
        let skips = (*packet).skips_stages != 0;
        (*packet).skips_stages = 0;
        skips
    }
}
