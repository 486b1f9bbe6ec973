//! The answer to a SYN that a load balancer sent here in a tunnel: it goes to the client directly, as all that the node
//! sends it (direct server return).

use aya_ebpf::helpers::generated::bpf_xdp_store_bytes;
use aya_ebpf::programs::XdpContext;
use edge_common::header::{ETHERNET_LEN, TCP_LEN};

use super::Segment;
use super::general::{ANSWERED, BY_ROUTE, NOT_ANSWERED, place, syncookie_answer};
use crate::opaque::opaque;
use crate::stage::route::{ANSWERABLE, leave_vlan, route_answer};
use crate::{counters, state};

/// Turns the SYN into its SYN-ACK, on its way to the client; `None`: no way is known, and the packet is as it was.
#[inline(always)]
pub(super) fn answer_by_route(ctx: &XdpContext, segment: &Segment<'_>) -> Option<u32> {
    let packet = state::packet()?;
    let answer = opaque(route_answer(ctx.ctx) as usize) as u32;
    if answer != ANSWERABLE {
        counters::left_to_kernel(answer);
        return None;
    }
    // The interfaces that are found are in no VLAN.
    if leave_vlan(ctx.ctx) != 0 {
        return Some(NOT_ANSWERED);
    }
    let offset = ETHERNET_LEN + segment.network.header_len();
    let options_len = segment.transport.header_len as usize - TCP_LEN;
    let place = place(segment.network, offset, options_len) | BY_ROUTE;
    let answer = syncookie_answer(ctx.ctx, place);
    if answer != ANSWERED {
        return Some(answer);
    }
    // SAFETY: the element is this CPU's alone, and the search for the way wrote it; the helper checks the frame's bounds, and
    // the addresses are as long as it is told.
    let stored = unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, (&raw mut (*packet).route.macs).cast(), 12) };
    Some(if stored == 0 { ANSWERED } else { NOT_ANSWERED })
}
