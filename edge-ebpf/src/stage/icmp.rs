//! Answers echo requests to virtual addresses, and refuses what is no use there.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use edge_common::icmp::{self, ECHO, ECHO_REPLY, ECHO_REPLY_V6, ECHO_V6, Message};
use edge_common::parse::{self, Network};
use edge_common::verdict::{ReplyReason, Trace};
use edge_common::vip::Entry;
use edge_common::{DropReason, PassReason, Verdict, checksum};

use super::source::Trust;
use super::{flood, penalty, prefixes, source, vip};
use crate::maps;
use crate::packet::Frame;
use crate::state::settle_later;

/// Time to live and hop limit of an answer, as the kernel's.
const TTL: u8 = 64;

/// Judges a packet to a virtual address that has no ports. It is seldom, so it is read once more from its beginning.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let bytes = Frame::new(&context).len();
    let verdict = match judge(&context) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::drop(reason).into(),
    };
    settle_later(verdict, bytes)
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Result<Trace, DropReason> {
    let for_stack = Ok(Verdict::Pass(PassReason::OtherProtocol).into());
    let mut frame = Frame::new(ctx);
    let (Some(config), Ok(network)) = (maps::CONFIG.get(0), parse::network(&mut frame)) else {
        return for_stack;
    };
    // The node's own address: it answers for itself.
    if vip::marker(network.destination, config.flags).is_some_and(|marker| marker.has(Entry::SHARED)) {
        return for_stack;
    }
    let marks = prefixes::marks(config, network.source);
    let trust = source::check(config, network.source, marks)?;
    let icmp_at = frame.offset(ctx) as u32;
    let message = icmp::message(&mut frame, &network)?;
    if trust == Trust::Ordinary {
        penalty::check(config, network.source, marks, false)?;
        flood::check(config, network.source, false)?;
    }
    match message {
        Message::ForStack => for_stack,
        Message::Echo => {
            answer(ctx.ctx, &network, icmp_at)?;
            Ok(Trace {
                kind: Trace::REPLY,
                reason: ReplyReason::Echo.index(),
                vip: Trace::NONE,
                worker: Trace::NONE,
                flow: Trace::NONE,
            })
        }
    }
}

/// Turns an echo request into its answer: addresses change places, which changes no checksum; type and time to live do.
#[inline(always)]
fn answer(ctx: *mut xdp_md, network: &Network, icmp_at: u32) -> Result<(), DropReason> {
    let is_v6 = network.is_v6();
    let (request, reply) = if is_v6 {
        (ECHO_V6, ECHO_REPLY_V6)
    } else {
        (ECHO, ECHO_REPLY)
    };
    let mut macs = [0_u16; 6];
    let mut icmp = [0_u8; 4];
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    let is_loaded = unsafe {
        bpf_xdp_load_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) == 0
            && bpf_xdp_load_bytes(ctx, icmp_at, icmp.as_mut_ptr().cast(), 4) == 0
    };
    if !is_loaded {
        return Err(DropReason::TruncatedIcmp);
    }
    let [a, b, c, d, e, f] = macs;
    macs = [d, e, f, a, b, c];
    let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
    let word = |kind: u8| u16::from_be_bytes([kind, 0]);
    let [high, low] = checksum::replace(sum, word(request), word(reply)).to_be_bytes();
    icmp = [reply, 0, high, low];
    // SAFETY: as above.
    let is_stored = unsafe {
        bpf_xdp_store_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) == 0
            && bpf_xdp_store_bytes(ctx, icmp_at, icmp.as_mut_ptr().cast(), 4) == 0
    };
    let is_turned = if is_v6 {
        turn_v6(ctx, icmp_at.wrapping_sub(network.header_len() as u32))
    } else {
        turn_v4(ctx, icmp_at.wrapping_sub(network.header_len() as u32))
    };
    if is_stored && is_turned {
        Ok(())
    } else {
        Err(DropReason::Internal)
    }
}

/// Exchanges the addresses of an IPv4 header, and sets its time to live.
#[inline(always)]
fn turn_v4(ctx: *mut xdp_md, at: u32) -> bool {
    let mut header = [0_u8; 12];
    // SAFETY: the helpers check the frame's bounds, and the buffer is as long as they are told.
    unsafe {
        if bpf_xdp_load_bytes(ctx, at + 8, header.as_mut_ptr().cast(), 12) != 0 {
            return false;
        }
        let [ttl, protocol, high, low, a, b, c, d, e, f, g, h] = header;
        let word = |ttl: u8| u16::from_be_bytes([ttl, protocol]);
        let sum = checksum::replace(u16::from_be_bytes([high, low]), word(ttl), word(TTL));
        let [high, low] = sum.to_be_bytes();
        header = [TTL, protocol, high, low, e, f, g, h, a, b, c, d];
        bpf_xdp_store_bytes(ctx, at + 8, header.as_mut_ptr().cast(), 12) == 0
    }
}

/// The same of an IPv6 header, which has no checksum.
#[inline(always)]
fn turn_v6(ctx: *mut xdp_md, at: u32) -> bool {
    let mut addresses = [0_u64; 4];
    let mut limit = [TTL];
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    unsafe {
        if bpf_xdp_load_bytes(ctx, at + 8, addresses.as_mut_ptr().cast(), 32) != 0 {
            return false;
        }
        let [a, b, c, d] = addresses;
        addresses = [c, d, a, b];
        bpf_xdp_store_bytes(ctx, at + 7, limit.as_mut_ptr().cast(), 1) == 0
            && bpf_xdp_store_bytes(ctx, at + 8, addresses.as_mut_ptr().cast(), 32) == 0
    }
}
