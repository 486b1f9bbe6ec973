//! Takes packets out of tunnels that end here, and sends those on that the worker before has to see.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use edge_common::decap::{self, CONGESTION_EXPERIENCED, Inner, MAX_TRUSTED, Outer};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_LEN};
use edge_common::parse;
use edge_common::{Address, Config, DropReason, PassReason, Verdict};

use super::vip;
use crate::maps;
use crate::opaque::opaque;
use crate::packet::Frame;
use crate::settle::finish;
use crate::state::{SETTLE, settle_later};

/// Answers of [`decap_unpack`] beside XDP actions: how the packet came that is to be judged now.
const ALONE: u32 = 0x100;
const UNPACKED: u32 = 0x101;

/// Takes a packet out of its tunnel, if it came by one that ends here; `Err` is the action for one that goes no further
/// way. Pointers to the frame are worth nothing afterwards.
#[inline(always)]
pub(crate) fn unpack(ctx: &XdpContext) -> Result<(), u32> {
    let has_tunnels = maps::CONFIG
        .get(0)
        .is_some_and(|config| config.has(Config::HAS_TUNNELS));
    if !has_tunnels {
        return Ok(());
    }
    // The compiler sees what the function can answer, and would leave out checks that the verifier asks for.
    match opaque(decap_unpack(ctx.as_ptr().cast()) as usize) as u32 {
        ALONE | UNPACKED => Ok(()),
        SETTLE => Err(finish(ctx.ctx)),
        action => Err(action),
    }
}

/// Longest link header: with two VLAN tags.
const MAX_LINK_LEN: usize = ETHERNET_LEN + 2 * VLAN_LEN;

/// Judges the tunnel and takes its headers off. It is a function of its own, so that the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decap_unpack(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(config) = maps::CONFIG.get(0) else {
        return ALONE;
    };
    let bytes = Frame::new(&ctx).len();
    match try_unpack(&ctx, config) {
        Ok(UNPACKED) if config.has(Config::IS_PLAIN_HOST) => {
            settle_later(Verdict::Pass(PassReason::Decapsulated).into(), bytes)
        }
        Ok(answer) => answer,
        Err(reason) => settle_later(Verdict::drop(reason).into(), bytes),
    }
}

#[inline(always)]
fn try_unpack(ctx: &XdpContext, config: &Config) -> Result<u32, DropReason> {
    let mut frame = Frame::new(ctx);
    let Ok(ethertype) = parse::ethertype(&mut frame) else {
        return Ok(ALONE);
    };
    let link_len = frame.offset(ctx);
    let Some(outer) = decap::outer(&mut frame, ethertype, &config.decap)? else {
        return Ok(ALONE);
    };
    if config.decap.trusted != 0 && !is_trusted(outer.source) {
        return Err(DropReason::TunnelSource);
    }
    let inner = decap::inner(&mut frame, &outer)?;
    if vip::marker(inner.destination, config.flags).is_none() {
        return Err(DropReason::TunnelInner);
    }
    strip(ctx.as_ptr().cast(), link_len, &outer, &inner)?;
    Ok(UNPACKED)
}

/// Whether tunnels are accepted from an address.
#[inline(always)]
fn is_trusted(source: Address) -> bool {
    let [a, b, c, d] = source.0;
    decap_is_trusted(super::source::pair(a, b), super::source::pair(c, d)) != 0
}

/// Looks for the address among the prefixes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decap_is_trusted(high: u64, low: u64) -> u32 {
    let (Some(config), Some(trusted)) = (maps::CONFIG.get(0), maps::TUNNEL_PEERS.get(0)) else {
        return 0;
    };
    let address = super::source::unpair(high, low);
    let mut count = config.decap.trusted as usize;
    if count > MAX_TRUSTED {
        count = MAX_TRUSTED;
    }
    for (at, peer) in trusted.peers.iter().enumerate() {
        if at >= count {
            break;
        }
        if peer.contains(address) {
            return 1;
        }
    }
    0
}

/// Takes the tunnel's headers away: the link header moves up to the packet inside, with that one's EtherType.
#[inline(always)]
fn strip(ctx: *mut xdp_md, link_len: usize, outer: &Outer, inner: &Inner) -> Result<(), DropReason> {
    // A constant length for each kind of link header, which the helpers' checks ask for.
    let mut link = [0_u8; MAX_LINK_LEN];
    let link_len = opaque(link_len).clamp(ETHERNET_LEN, MAX_LINK_LEN) as u32;
    let ethertype = if outer.is_inner_v6 {
        ETHERTYPE_IPV6
    } else {
        ETHERTYPE_IPV4
    };
    let ethertype = ethertype.to_be_bytes();
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    let done = unsafe {
        bpf_xdp_load_bytes(ctx, 0, link.as_mut_ptr().cast(), link_len) == 0
            && bpf_xdp_adjust_head(ctx, outer.len as i32) == 0
            && bpf_xdp_store_bytes(ctx, 0, link.as_mut_ptr().cast(), link_len) == 0
            && bpf_xdp_store_bytes(ctx, link_len - 2, ethertype.as_ptr().cast_mut().cast(), 2) == 0
    };
    if !done {
        return Err(DropReason::Internal);
    }
    if outer.ecn == CONGESTION_EXPERIENCED && inner.ecn != CONGESTION_EXPERIENCED {
        mark(ctx, link_len, outer.is_inner_v6)?;
    }
    Ok(())
}

/// Carries the mark of congestion over to the packet (RFC 6040 4.2).
#[inline(always)]
fn mark(ctx: *mut xdp_md, at: u32, is_v6: bool) -> Result<(), DropReason> {
    let mut head = [0_u8; 12];
    // SAFETY: the helpers check the frame's bounds, and the buffer is as long as they are told.
    let done = unsafe {
        bpf_xdp_load_bytes(ctx, at, head.as_mut_ptr().cast(), 12) == 0 && {
            if is_v6 {
                head[1] |= 0x30;
            } else {
                let old = u16::from_be_bytes([head[0], head[1]]);
                let sum = u16::from_be_bytes([head[10], head[11]]);
                let [high, low] = edge_common::checksum::replace(sum, old, old | 3).to_be_bytes();
                head[1] |= 3;
                head[10] = high;
                head[11] = low;
            }
            bpf_xdp_store_bytes(ctx, at, head.as_mut_ptr().cast(), 12) == 0
        }
    };
    if done { Ok(()) } else { Err(DropReason::Internal) }
}
