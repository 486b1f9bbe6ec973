//! Connections that this node did not see begin: their packets go to the selected worker and, if that one has no such
//! connection, once to the worker that had their slot before.
//!
//! A load balancer wraps such a packet twice: inside for the previous owner of the slot, outside for the selected worker.
//! The worker's node looks for the connection's socket. If there is one, or the packet brings a cookie of this node and so
//! opens the connection, both tunnels come off; else the outer one alone, and the packet goes on to the previous owner, to
//! whom it is a packet in a tunnel like any other. There is nothing more to take off then, so no packet is handed on twice.
//! UDP has no connections to look for: its packets go to the selected worker alone.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_store_bytes;
use aya_ebpf::programs::XdpContext;
use edge_common::cursor::{Cursor as _, Window as _};
use edge_common::decap::{self, CONGESTION_EXPERIENCED, Outer};
use edge_common::header::{IPV4_LEN, IPV6_LEN};
use edge_common::verdict::Trace;
use edge_common::worker;
use edge_common::{Address, Config, DropReason, FlowReason, PassReason, TCP, Verdict};
use edge_common::{connection, parse};

use super::decap::{UNPACKED, is_trusted, strip};
use super::forward::{SEND, TOO_BIG};
use super::route::Failure;
use super::syncookie::brings_cookie;
use super::{route, socket, tunnel, vip};
use crate::maps;
use crate::packet::Frame;
use crate::settle::{dropped, settle};
use crate::state::{self, FOR_THIS_NODE, Packet, settle_later};

/// Decides between the worker that was chosen for the packet in work and the one before, or sends it to the one with the way
/// to the other. The answer is the XDP action, or [`SEND`]: it is to be sent to the worker that is noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward_twice(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return settle(&context, Verdict::drop(DropReason::NoWorker).into(), 0);
    };
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &mut *packet };
    let before = previous(config, packet);
    let (Some(chosen), Some(previous)) = (maps::WORKERS.get(packet.worker), maps::WORKERS.get(before)) else {
        return SEND;
    };
    if before == packet.worker || !previous.keeps_flows() {
        // Nobody had the slot before, or it is down: nothing is to be had there.
        return SEND;
    }
    let is_here = chosen.mode == worker::LOCAL;
    if is_here || previous.mode == worker::LOCAL {
        // One of both is this node, which sees by itself whether it has the connection.
        if is_here != is_own(ctx, packet) {
            packet.worker = before;
            packet.flow = FlowReason::SecondHop;
        }
        return SEND;
    }
    if !chosen.is_in_tunnel() || !previous.is_in_tunnel() {
        return SEND;
    }
    let (vip, bytes) = (u32::from(packet.vip.vip), packet.frame_len);
    if let Err(reason) = tunnel::enter_twice(ctx, config, packet, chosen, previous) {
        return if reason == DropReason::TooBig {
            TOO_BIG
        } else {
            dropped(ctx, reason.index(), vip, bytes)
        };
    }
    let forwarded = Verdict::Forward {
        vip,
        worker: packet.worker,
        flow: FlowReason::SecondHop,
        opens_connection: false,
    };
    settle(&context, forwarded.into(), u64::from(bytes))
}

/// Whether this node has the connection of the packet in work, or has answered its SYN with a cookie.
#[inline(always)]
fn is_own(ctx: *mut xdp_md, packet: &Packet) -> bool {
    let (network, transport) = (&packet.network, &packet.transport);
    socket::has_connection(ctx, network, transport)
        || network.is_plain() && brings_cookie(ctx, network.is_v6(), packet.transport_at as usize)
}

/// Who had the slot of the packet's flow before; the chosen worker if nobody did.
#[inline(always)]
fn previous(config: &Config, packet: &Packet) -> u32 {
    let keys = connection::keys(parse::flow(&packet.network, &packet.transport), packet.vip.flags);
    let table = maps::MAGLEV.get(u32::from(packet.vip.pool));
    let previous = table.and_then(|table| table.previous(config.hash.hash(&keys.selection)));
    previous.map_or(packet.worker, u32::from)
}

/// Judges a tunnel that holds another: takes both off, or the outer one alone. The answer is one of
/// [`decap_unpack`](super::decap::decap_unpack)'s, or an XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decap_hand_on(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(config) = maps::CONFIG.get(0) else {
        return settle_later(Verdict::drop(DropReason::Internal).into(), 0);
    };
    let bytes = Frame::new(&ctx).len();
    match judge(&ctx, config) {
        Ok(Fate::Here) if config.has(Config::IS_PLAIN_HOST) => {
            settle_later(Verdict::Pass(PassReason::Decapsulated).into(), bytes)
        }
        Ok(Fate::Here) => {
            if let Some(packet) = state::packet() {
                // SAFETY: the element is this CPU's alone.
                unsafe { (*packet).came = FOR_THIS_NODE };
            }
            UNPACKED
        }
        Ok(Fate::HandedOn) => settle_later(Trace::HANDED_ON, bytes),
        Ok(Fate::ByStack) => settle_later(Verdict::Pass(PassReason::HandedToStack).into(), bytes),
        Err(reason) => settle_later(Verdict::drop(reason).into(), bytes),
    }
}

/// What becomes of a packet in two tunnels.
enum Fate {
    /// The connection is this node's: both are off.
    Here,
    /// The frame is ready to be handed on.
    HandedOn,
    /// The kernel's stack is to forward it, which asks for the next hop's MAC address first.
    ByStack,
}

/// Looks for the connection, and prepares the frame for what becomes of it.
#[inline(always)]
fn judge(ctx: &XdpContext, config: &Config) -> Result<Fate, DropReason> {
    let Some(packet) = state::packet() else {
        return Err(DropReason::Internal);
    };
    // SAFETY: the element is this CPU's alone, and `decap_unpack` wrote it.
    let around = unsafe { (*packet).around };
    let link_len = around.link_len as usize;
    let outer = Outer {
        // Both were judged.
        source: Address::default(),
        destination: Address::default(),
        len: around.len as usize,
        payload_len: around.payload_len as usize,
        ecn: around.ecn,
        is_inner_v6: around.is_inner_v6 != 0,
    };
    let mut frame = Frame::behind(ctx, link_len + outer.len);
    let (header, second) = decap::nested(&mut frame, &outer)?;
    if !is_trusted(second.destination) {
        return Err(DropReason::TunnelInner);
    }
    let inner = decap::inner(&mut frame, &second)?;
    if inner.protocol != u32::from(TCP)
        || !inner.is_plain
        || vip::marker(inner.destination, config.flags).is_none()
    {
        return Err(DropReason::TunnelInner);
    }
    let ports = frame.take::<4>().ok_or(DropReason::TunnelInner)?.word::<0>();
    let ([a, b, c, d], [e, f, g, h]) = (inner.source.0, inner.destination.0);
    let ctx: *mut xdp_md = ctx.as_ptr().cast();
    let is_v6 = second.is_inner_v6;
    let has_connection = if is_v6 {
        socket::has_connection6(ctx, [a, b, c, d, e, f, g, h, ports])
    } else {
        socket::has_connection4(ctx, [d, h, ports])
    };
    let header_len = if is_v6 { IPV6_LEN } else { IPV4_LEN };
    // A SYN that was answered with a cookie left nothing behind: its ACK is what opens the connection.
    if has_connection || brings_cookie(ctx, is_v6, link_len + outer.len + second.len + header_len) {
        let is_marked = outer.ecn == CONGESTION_EXPERIENCED || second.ecn == CONGESTION_EXPERIENCED;
        let both = Outer {
            len: outer.len + second.len,
            ecn: if is_marked { CONGESTION_EXPERIENCED } else { 0 },
            ..second
        };
        strip(ctx, link_len, &both, &inner)?;
        return Ok(Fate::Here);
    }
    strip(ctx, link_len, &outer, &header)?;
    let mut macs = match route::to_address(ctx, packet, second.destination) {
        Ok(macs) => macs,
        Err(Failure::StackMayKnow) => return Ok(Fate::ByStack),
        Err(Failure::NoRoute) => return Err(DropReason::NoRoute),
    };
    // The interfaces that it finds are in no VLAN.
    route::retag(ctx, link_len as u32, outer.is_inner_v6, 0).ok_or(DropReason::NoHeadroom)?;
    // SAFETY: the helper checks the frame's bounds, and the buffer is as long as it is told.
    if unsafe { bpf_xdp_store_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) } != 0 {
        return Err(DropReason::Internal);
    }
    Ok(Fate::HandedOn)
}
