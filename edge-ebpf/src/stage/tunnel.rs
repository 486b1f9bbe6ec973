//! Puts a packet into a tunnel, or gives it the MAC address of its worker.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_LEN};
use edge_common::tunnel::{Inner, Outer};
use edge_common::worker::{self, Entry as Worker};
use edge_common::{Config, DropReason, IPIP, IPV6, UDP, tunnel};

use super::route;
use crate::opaque::opaque;
use crate::state::Packet;
use crate::word::{load, store};

/// Longest header before the IP header: Ethernet and two VLAN tags.
const LONGEST_LINK: usize = ETHERNET_LEN + 2 * VLAN_LEN;

/// Prepares the frame for its way to a worker.
#[inline(always)]
pub(crate) fn enter(
    ctx: *mut xdp_md,
    config: &Config,
    packet: &mut Packet,
    worker: &Worker,
) -> Result<(), DropReason> {
    let link_len = packet.network_at as usize & 0x1f;
    let context = XdpContext::new(ctx);
    let inner = inner(&context, link_len, packet.network.is_v6()).ok_or(DropReason::NoHeadroom)?;
    let overhead = worker.overhead();
    if inner.len + overhead > u32::from(worker.mtu) {
        packet.limit = u32::from(worker.mtu).saturating_sub(overhead);
        return Err(DropReason::TooBig);
    }
    // The next hop's MAC address, and ours: the one that the frame came to.
    let (hop, link_len) = route::find(ctx, worker)?;
    if overhead == 0 {
        // Nothing was moved, but the route may have called a helper.
        let (data, end) = (context.data(), context.data_end());
        if data + ETHERNET_LEN > end {
            return Err(DropReason::NoHeadroom);
        }
        write_macs(data, hop);
        return Ok(());
    }
    encapsulate(ctx, config, packet.hash, worker, inner, hop, link_len)
}

/// What the outer header takes from the packet's.
#[inline(always)]
pub(crate) fn inner(ctx: &XdpContext, link_len: usize, is_v6: bool) -> Option<Inner> {
    let (data, end) = (ctx.data(), ctx.data_end());
    let at = opaque(data + link_len);
    if data + ETHERNET_LEN > end || at + 8 > end {
        return None;
    }
    Some(if is_v6 {
        Inner::v6(load!("u32", at, 0) as u32, load!("u32", at, 4) as u32)
    } else {
        Inner::v4(load!("u32", at, 0) as u32)
    })
}

/// Puts the tunnel's headers before the packet.
#[inline(always)]
pub(crate) fn encapsulate(
    ctx: *mut xdp_md,
    config: &Config,
    hash: u64,
    worker: &Worker,
    inner: Inner,
    hop: [u32; 3],
    link_len: usize,
) -> Result<(), DropReason> {
    let context = XdpContext::new(ctx);
    let tags = [
        tag(&context, ETHERNET_LEN - 2, link_len),
        tag(&context, ETHERNET_LEN + 2, link_len),
    ];
    // SAFETY: the context is the kernel's; no packet pointer from before is used after.
    if unsafe { bpf_xdp_adjust_head(ctx, -(worker.overhead() as i32)) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    write(&context, config, hash, worker, inner, hop, tags, link_len)
}

/// Prepares the frame for its way to a worker, in a second tunnel to another inside of the first.
#[inline(always)]
pub(crate) fn enter_twice(
    ctx: *mut xdp_md,
    config: &Config,
    packet: &mut Packet,
    worker: &Worker,
    other: &Worker,
) -> Result<(), DropReason> {
    let link_len = packet.network_at as usize & 0x1f;
    let context = XdpContext::new(ctx);
    let inner = inner(&context, link_len, packet.network.is_v6()).ok_or(DropReason::NoHeadroom)?;
    let (first, second) = (worker.overhead(), other.overhead());
    if inner.len + first + second > u32::from(worker.mtu) {
        packet.limit = u32::from(worker.mtu).saturating_sub(first + second);
        return Err(DropReason::TooBig);
    }
    let (hop, link_len) = route::find(ctx, worker)?;
    encapsulate(ctx, config, packet.hash, other, inner, hop, link_len)?;
    let inner = Inner {
        len: inner.len + second,
        is_v6: !other.address.is_v4(),
        ..inner
    };
    encapsulate(ctx, config, packet.hash, worker, inner, hop, link_len)
}

/// Four bytes of the link header that end with the IP header's EtherType, as they were: a VLAN tag that goes out again.
#[inline(always)]
fn tag(ctx: &XdpContext, at: usize, link_len: usize) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if link_len < at + 6 || data + LONGEST_LINK > end {
        return 0;
    }
    let at = data + at;
    load!("u32", at, 0) as u32
}

/// Both MAC addresses of a frame as it came.
#[inline(always)]
pub(crate) fn link(ctx: &XdpContext) -> Option<[u32; 3]> {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET_LEN > end {
        return None;
    }
    Some([
        load!("u32", data, 0) as u32,
        load!("u32", data, 4) as u32,
        load!("u32", data, 8) as u32,
    ])
}

/// Puts an untagged frame back as it was before [`encapsulate`].
#[inline(always)]
pub(crate) fn take_off(
    ctx: &XdpContext,
    overhead: u32,
    link: [u32; 3],
    is_v6: bool,
) -> Result<(), DropReason> {
    // SAFETY: the context is the kernel's; no packet pointer from before is used after.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, overhead as i32) } != 0 {
        return Err(DropReason::NoHeadroom);
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET_LEN > end {
        return Err(DropReason::NoHeadroom);
    }
    write_macs(data, link);
    let ethertype = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    store!("u16", data, ETHERNET_LEN - 2, ethertype.to_be());
    Ok(())
}

/// MAC addresses of the next hop and of the interface.
#[inline(always)]
fn write_macs(data: usize, [a, b, c]: [u32; 3]) {
    store!("u32", data, 0, a);
    store!("u32", data, 4, b);
    store!("u32", data, 8, c);
}

/// Writes link header and outer headers.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one caller, into which it is inlined")]
fn write(
    ctx: &XdpContext,
    config: &Config,
    hash: u64,
    worker: &Worker,
    inner: Inner,
    hop: [u32; 3],
    tags: [u32; 2],
    link_len: usize,
) -> Result<(), DropReason> {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + LONGEST_LINK > end {
        return Err(DropReason::NoHeadroom);
    }
    write_macs(data, hop);
    if link_len > ETHERNET_LEN {
        store!("u32", data, 12, tags[0]);
    }
    if link_len > ETHERNET_LEN + VLAN_LEN {
        store!("u32", data, 16, tags[1]);
    }
    let is_gue = worker.mode == worker::GUE;
    let protocol = match (is_gue, inner.is_v6) {
        (true, _) => UDP,
        (false, true) => IPV6,
        (false, false) => IPIP,
    };
    let outer = Outer {
        protocol,
        len: inner.len + worker.overhead(),
        class: inner.class,
        hash,
    };
    // Where the EtherType goes: the verifier allows no offset before a pointer that it has compared.
    let at = opaque(data + (opaque(link_len - 2) & 0x1f));
    let udp = if worker.address.is_v4() {
        let [a, b, c, d, e] = outer.ipv4(&config.tunnel, worker);
        if at + 22 > end {
            return Err(DropReason::NoHeadroom);
        }
        store!("u16", at, 0, ETHERTYPE_IPV4.to_be());
        store!("u32", at, 2, a);
        store!("u32", at, 6, b);
        store!("u32", at, 10, c);
        store!("u32", at, 14, d);
        store!("u32", at, 18, e);
        opaque(at + 22)
    } else {
        let label = if inner.label == 0 {
            hash as u32 & tunnel::LABEL
        } else {
            inner.label
        };
        let [a, b, c] = outer.ipv6(&config.tunnel, label);
        let [d, e, f, g] = worker.address.0;
        let [h, i, j, _] = config.tunnel.source6;
        if at + 42 > end {
            return Err(DropReason::NoHeadroom);
        }
        store!("u16", at, 0, ETHERTYPE_IPV6.to_be());
        store!("u32", at, 2, a);
        store!("u32", at, 6, b);
        store!("u32", at, 10, h);
        store!("u32", at, 14, i);
        store!("u32", at, 18, j);
        store!("u32", at, 22, c);
        store!("u32", at, 26, d);
        store!("u32", at, 30, e);
        store!("u32", at, 34, f);
        store!("u32", at, 38, g);
        opaque(at + 42)
    };
    if is_gue {
        if udp + 8 > end {
            return Err(DropReason::NoHeadroom);
        }
        let [ports, rest] = outer.udp(worker);
        store!("u32", udp, 0, ports);
        store!("u32", udp, 4, rest);
    }
    Ok(())
}
