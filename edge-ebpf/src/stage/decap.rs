//! Takes packets out of tunnels that end here, and sends those on that the worker before has to see.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use edge_common::decap::{self, CONGESTION_EXPERIENCED, Inner, MAX_TRUSTED, Outer};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_LEN};
use edge_common::parse;
use edge_common::{Address, Config, DropReason, PassReason, Verdict, checksum};

use super::{second_hop, vip};
use crate::maps;
use crate::opaque::opaque;
use crate::packet::Frame;
use crate::settle::finish;
use crate::state::{self, Around, DIRECT, FOR_THIS_NODE, RELAYED, SETTLE, settle_later};

/// Answers of [`decap_unpack`] beside XDP actions: how the packet came that is to be judged now.
const ALONE: u32 = 0x100 + DIRECT;
pub(crate) const UNPACKED: u32 = 0x100 + FOR_THIS_NODE;
const FOR_RELAY: u32 = 0x100 + RELAYED;
/// It holds another tunnel, which may be handed on.
const NESTED: u32 = 0x200;

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
    let mut answer = opaque(decap_unpack(ctx.as_ptr().cast()) as usize) as u32;
    if answer == NESTED {
        answer = opaque(second_hop::decap_hand_on(ctx.as_ptr().cast()) as usize) as u32;
    }
    match answer {
        ALONE | UNPACKED | FOR_RELAY => Ok(()),
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
    let answer = match try_unpack(&ctx, config) {
        Ok(UNPACKED) if config.has(Config::IS_PLAIN_HOST) => {
            return settle_later(Verdict::Pass(PassReason::Decapsulated).into(), bytes);
        }
        Ok(NESTED) => return NESTED,
        Ok(answer) => answer,
        Err(reason) => return settle_later(Verdict::drop(reason).into(), bytes),
    };
    if let Some(packet) = state::packet() {
        // SAFETY: the element is this CPU's alone.
        unsafe { (*packet).came = answer - ALONE };
    }
    answer
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
        // Only whoever is known may have packets sent on.
        let may_hand_on = config.decap.trusted != 0 && inner.is_plain && decap::may_be_tunnel(inner.protocol);
        let Some(packet) = state::packet().filter(|_| may_hand_on) else {
            return Err(DropReason::TunnelInner);
        };
        let around = Around {
            link_len: link_len as u32,
            len: outer.len as u32,
            payload_len: outer.payload_len as u32,
            ecn: outer.ecn,
            is_inner_v6: u32::from(outer.is_inner_v6),
        };
        // SAFETY: the element is this CPU's alone.
        unsafe { (*packet).around = around };
        return Ok(NESTED);
    }
    strip(ctx.as_ptr().cast(), link_len, &outer, &inner)?;
    if config.decap.relays != 0 && config.decap.relays_at(&outer.destination) {
        return Ok(FOR_RELAY);
    }
    Ok(UNPACKED)
}

/// Whether tunnels are accepted from an address.
#[inline(always)]
pub(crate) fn is_trusted(source: Address) -> bool {
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
pub(crate) fn strip(
    ctx: *mut xdp_md,
    link_len: usize,
    outer: &Outer,
    inner: &Inner,
) -> Result<(), DropReason> {
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
    let is_marked = outer.ecn == CONGESTION_EXPERIENCED;
    pass_hop(ctx, link_len, outer.is_inner_v6, is_marked)?;
    if inner.is_expired() {
        return Err(DropReason::TunnelTtl);
    }
    Ok(())
}

/// Takes a hop off what the packet has left to live, and carries a mark of congestion over to it (RFC 6040 4.2).
#[inline(always)]
fn pass_hop(ctx: *mut xdp_md, at: u32, is_v6: bool, is_marked: bool) -> Result<(), DropReason> {
    let mut head = [0_u8; 12];
    // SAFETY: the helpers check the frame's bounds, and the buffer is as long as they are told.
    let done = unsafe {
        bpf_xdp_load_bytes(ctx, at, head.as_mut_ptr().cast(), 12) == 0 && {
            if is_v6 {
                head[7] = head[7].wrapping_sub(1);
                if is_marked {
                    head[1] |= 0x30;
                }
            } else {
                let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
                let hops = head[8].wrapping_sub(1);
                let class = if is_marked { head[1] | 3 } else { head[1] };
                let mut sum = word(head[10], head[11]);
                sum = checksum::replace(sum, word(head[8], head[9]), word(hops, head[9]));
                sum = checksum::replace(sum, word(head[0], head[1]), word(head[0], class));
                [head[10], head[11]] = sum.to_be_bytes();
                head[1] = class;
                head[8] = hops;
            }
            bpf_xdp_store_bytes(ctx, at, head.as_mut_ptr().cast(), 12) == 0
        }
    };
    if done { Ok(()) } else { Err(DropReason::Internal) }
}
