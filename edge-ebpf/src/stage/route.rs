//! The next hop on the way to a worker.

use aya_ebpf::bindings::{bpf_fib_lookup as FibLookup, xdp_md};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;
use edge_common::header::ETHERNET_LEN;
use edge_common::worker::Entry as Worker;
use edge_common::{Address, DropReason};

use super::source::{pair, unpair};
use crate::state::Packet;

/// Address families, as the kernel's `struct bpf_fib_lookup` has them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Both MAC addresses as they stand at the start of a frame, and the interface (noted in the packet).
#[inline(always)]
pub(crate) fn find(ctx: *mut xdp_md, packet: &mut Packet, worker: &Worker) -> Result<[u32; 3], DropReason> {
    if !is_fixed(worker) {
        return by_fib(ctx, packet, worker.address);
    }
    packet.route.interface = worker.interface;
    fixed(ctx, worker)
}

/// Whether a worker's next hop is configured.
#[inline(always)]
pub(crate) fn is_fixed(worker: &Worker) -> bool {
    let (first, second) = next_hop(worker);
    first != 0 || second != 0
}

#[inline(always)]
fn next_hop(worker: &Worker) -> (u32, u16) {
    let [a, b, c, d, e, f] = worker.next_hop;
    (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
}

/// Both MAC addresses on the way to a worker whose next hop is configured.
#[inline(always)]
pub(crate) fn fixed(ctx: *mut xdp_md, worker: &Worker) -> Result<[u32; 3], DropReason> {
    let (first, second) = next_hop(worker);
    let source = match worker.source_mac {
        [0, 0, 0, 0, 0, 0] => own_mac(ctx)?,
        [g, h, i, j, k, l] => [
            u16::from_ne_bytes([g, h]),
            u16::from_ne_bytes([i, j]),
            u16::from_ne_bytes([k, l]),
        ],
    };
    let [x, y, z] = source.map(u32::from);
    Ok([first, u32::from(second) | x << 16, y | z << 16])
}

/// The address that the frame came to.
#[inline(always)]
fn own_mac(ctx: *mut xdp_md) -> Result<[u16; 3], DropReason> {
    let ctx = XdpContext::new(ctx);
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + ETHERNET_LEN > end {
        return Err(DropReason::NoHeadroom);
    }
    let mac = data as *const u16;
    // SAFETY: the frame is as long as an Ethernet header, and begins at an even address.
    unsafe { Ok([mac.read(), mac.add(1).read(), mac.add(2).read()]) }
}

/// What the kernel's routes and neighbours say.
#[inline(always)]
fn by_fib(ctx: *mut xdp_md, packet: &mut Packet, address: Address) -> Result<[u32; 3], DropReason> {
    let macs = to_address(ctx, packet, address)?;
    let [a, b, c, d, e, f] = macs.map(u32::from);
    Ok([a | b << 16, c | d << 16, e | f << 16])
}

/// The same for any address: both MAC addresses in halves.
#[inline(always)]
pub(crate) fn to_address(
    ctx: *mut xdp_md,
    packet: *mut Packet,
    address: Address,
) -> Result<[u16; 6], DropReason> {
    let [a, b, c, d] = address.0;
    if fib_search(ctx, pair(a, b), pair(c, d)) != 0 {
        return Err(DropReason::NoRoute);
    }
    // SAFETY: the element is this CPU's alone, and the search wrote it.
    Ok(unsafe { (*packet).route.macs })
}

/// Asks the routes for the next hop to an address, and writes it down with the packet; 0: there is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fib_search(ctx: *mut xdp_md, high: u64, low: u64) -> u32 {
    let Some(packet) = crate::state::packet() else {
        return 1;
    };
    let address = unpair(high, low);
    // SAFETY: a structure of numbers and unions of numbers, for which zeroes are a value.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*ctx).ingress_ifindex };
    lookup.ifindex = came_by;
    let [a, b, c, d] = address.0;
    if address.is_v4() {
        lookup.family = AF_INET;
        lookup.__bindgen_anon_4.ipv4_dst = d;
    } else {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_4.ipv6_dst = [a, b, c, d];
    }
    let len = size_of::<FibLookup>() as i32;
    // SAFETY: the structure is as long as it is told.
    if unsafe { bpf_fib_lookup(ctx.cast(), &raw mut lookup, len, 0) } != 0 {
        return 1;
    }
    let pair = |mac: [u8; 6], at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    let (to, from) = (lookup.dmac, lookup.smac);
    // SAFETY: the element is this CPU's alone.
    unsafe {
        (*packet).route.interface = if lookup.ifindex == came_by {
            0
        } else {
            lookup.ifindex
        };
        (*packet).route.macs = [
            pair(to, 0),
            pair(to, 2),
            pair(to, 4),
            pair(from, 0),
            pair(from, 2),
            pair(from, 4),
        ];
    }
    0
}
