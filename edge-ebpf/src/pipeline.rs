//! The stages of a packet, in order.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use edge_common::verdict::Trace;
use edge_common::vip::Entry;
use edge_common::{DropReason, PassReason, Verdict, parse};

use crate::maps;
use crate::packet::Frame;
use crate::settle::finish;
use crate::settle::{self, settle};
use crate::stage::forward::{SECOND_HOP, SEND, TOO_BIG};
use crate::stage::icmp::QUOTES;
use crate::stage::source::Trust;
use crate::stage::syncookie::{Admission, Answers, Segment};
use crate::stage::vip::Target;
use crate::stage::{
    flood, forward, icmp, malformed, penalty, prefixes, quoted, second_hop, select, source, syncookie,
    too_big, vip,
};
use crate::state::{self, DIRECT, FOR_THIS_NODE, Packet, SETTLE, settle_later};

/// What a function of the pipeline answers if the next is to be asked; else it answers with the XDP action.
const NEXT: u32 = u32::MAX;

/// The same, if the packet is for a virtual address and has no ports.
const WITHOUT_PORTS: u32 = u32::MAX - 2;

/// Judges a frame: functions that are called one after the other, not each by the one before, because all that are at
/// work at a time share a stack of 512 bytes. `skips_stages`: the stages have let the packet through on the short way.
#[inline(always)]
pub(crate) fn judge(ctx: &XdpContext, skips_stages: bool) -> u32 {
    let mut next = headers(ctx.ctx);
    if next == WITHOUT_PORTS {
        next = icmp::icmp(ctx.ctx);
    }
    if next == QUOTES {
        next = quoted::read_quote(ctx.ctx);
    }
    if next == quoted::READ {
        return send(ctx, quoted::forward_quoted(ctx.ctx));
    }
    if next == SETTLE {
        return finish(ctx.ctx);
    }
    if next != NEXT {
        return next;
    }
    if !skips_stages {
        let next = stages(ctx.ctx);
        if next != NEXT {
            return next;
        }
    }
    send(ctx, forward::forward(ctx.ctx))
}

/// Sends a packet whose worker was chosen, by what the choice answered.
#[inline(always)]
fn send(ctx: &XdpContext, mut next: u32) -> u32 {
    if next == SECOND_HOP {
        next = second_hop::forward_twice(ctx.ctx);
    }
    if next == SEND {
        next = forward::forward_send(ctx.ctx);
    }
    if next == TOO_BIG {
        next = too_big::answer_too_big(ctx.ctx);
    }
    next
}

/// Reads the headers of the frame, and writes down what [`stages`] need.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn headers(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(&ctx);
    let bytes = frame.len();
    match read(&ctx, frame) {
        Ok(()) => NEXT,
        Err(verdict)
            if verdict.kind == Trace::PASS && verdict.reason == PassReason::OtherProtocol.index() =>
        {
            WITHOUT_PORTS
        }
        // Most packets of a node are for no VIP: they go their way at once.
        Err(verdict) if verdict.kind == Trace::PASS => settle::passed(&verdict),
        Err(verdict) => settle_later(verdict, bytes),
    }
}

/// Reads the headers of a frame, and finds what it is for; `Err` is its fate.
///
/// The look-up of the VIP comes before lists, penalties and limits, so that packets for no VIP stay untouched and pay
/// next to nothing. Those then hold for everything that goes to a virtual address, served port or
/// not: the address may be the node's own too, with other services on it.
#[inline(always)]
fn read(ctx: &XdpContext, mut frame: Frame<'_>) -> Result<(), Trace> {
    let config = maps::CONFIG
        .get(0)
        .ok_or(Verdict::Pass(PassReason::NotConfigured))?;
    let frame_len = frame.len() as u32;
    let network = parse::network(&mut frame)?;
    vip::prefilter(config, &network)?;
    let Some(packet) = state::packet() else {
        return Err(Verdict::Pass(PassReason::NotConfigured).into());
    };
    let behind = frame.offset(ctx);
    // SAFETY: the element is this CPU's alone. Its fields are written one by one, and each before it is read.
    unsafe {
        (*packet).network = network;
        (*packet).network_at = (behind - network.header_len()) as u32;
        // Of a packet without ports, this is where the message begins.
        (*packet).transport_at = behind as u32;
        (*packet).frame_len = frame_len;
    }
    let transport =
        parse::transport(&mut frame, &network).map_err(|fate| vip::confirm(config, &network, fate))?;
    // The cursor stands behind the fixed part of the header: 20 bytes of TCP, 8 of UDP.
    let transport_at = frame.offset(ctx) as u32 - transport.fixed_len();
    let target = vip::find(config, &network, &transport)?;
    let (entry, is_service) = match target {
        Target::Service(entry) => (entry, 1),
        Target::AddressOnly => (Entry::marker(0), 0),
    };
    // SAFETY: as above.
    unsafe {
        (*packet).transport = transport;
        (*packet).vip = entry;
        (*packet).is_service = is_service;
        (*packet).transport_at = transport_at;
    }
    Ok(())
}

/// The stages of a packet to a virtual address, on what [`headers`] found; [`NEXT`]: it is to be forwarded.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stages(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(packet) = state::packet() else {
        return settle(&ctx, Verdict::Pass(PassReason::NotConfigured).into(), 0);
    };
    // SAFETY: the element is this CPU's alone, and `headers` wrote all that is read.
    let packet = unsafe { &*packet };
    match diary(&ctx, packet) {
        Ok(action) | Err(action) => action,
    }
}

/// Which way the answer to a SYN takes that is for a VIP and came so. One to a relay is balanced here, but its way back leads
/// to the balancer before.
#[inline(always)]
fn answers(vip: Entry, came: u32) -> Answers {
    match came {
        DIRECT if !vip.has(Entry::FORWARDS) => Answers::Back,
        FOR_THIS_NODE if !vip.has(Entry::IS_WIDE) => Answers::ByRoute,
        _ => Answers::Nowhere,
    }
}

/// What happens to the packet, line by line; `Err` ends it early. Each end is settled where it is reached: were verdicts
/// handed out of here, the compiler would read parts of them on ways on which they were never written.
#[inline(always)]
fn diary(ctx: &XdpContext, packet: &Packet) -> Result<u32, u32> {
    let bytes = u64::from(packet.frame_len);
    let Some(config) = maps::CONFIG.get(0) else {
        return Err(settle(
            ctx,
            Verdict::Pass(PassReason::NotConfigured).into(),
            bytes,
        ));
    };
    let (network, transport) = (&packet.network, &packet.transport);
    let is_service = packet.is_service != 0;
    let vip = u32::from(packet.vip.vip);
    let known = if is_service { vip } else { Trace::NONE };
    let dropped = |reason: DropReason| settle::dropped(ctx.ctx, reason.index(), known, packet.frame_len);
    let marks = prefixes::marks(config, network.source);
    let trust = source::check(config, network.source, marks).map_err(dropped)?;
    malformed::check(config, network, transport, is_service).map_err(dropped)?;
    if trust == Trust::Ordinary {
        penalty::check(config, network.source, marks, transport.opens_connection).map_err(dropped)?;
        flood::check(config, network.source, transport.opens_connection).map_err(dropped)?;
    }
    if !is_service {
        return Err(settle(
            ctx,
            Verdict::Pass(PassReason::PortNotServed).into(),
            bytes,
        ));
    }
    let came = state::came(config, packet);
    let forwards = state::forwards(packet.vip.flags, came) != 0;
    let answers = answers(packet.vip, came);
    let segment = Segment {
        network,
        transport,
        offset: packet.transport_at as usize,
        is_ordinary: false,
    };
    let admission = syncookie::check(ctx, config, &segment, vip, answers)
        .map_err(|verdict| settle(ctx, verdict.into(), bytes))?;
    if forwards {
        if packet.network.has_options() {
            return Err(dropped(DropReason::IpOptions));
        }
        return Ok(NEXT);
    }
    let flow = parse::flow(&packet.network, &packet.transport);
    let worker = match select::worker(config, &flow) {
        Ok(worker) => worker,
        // A balancer sent it to this node, whose own servers have the address, if no gateway worker does.
        Err(_) if packet.vip.has(Entry::FORWARDS) => {
            return Err(settle(ctx, Verdict::Pass(PassReason::Decapsulated).into(), bytes));
        }
        Err(reason) => return Err(dropped(reason)),
    };
    let delivered = Verdict::Deliver {
        vip,
        worker,
        opens_connection: packet.transport.opens_connection || admission == Admission::Opens,
    };
    Ok(settle(ctx, delivered.into(), bytes))
}
