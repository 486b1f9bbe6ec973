//! The next hop on the way to a worker.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::bindings::{bpf_fib_lookup as FibLookup, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, VLAN_LEN};
use edge_common::route::{FORWARDING_IS_OFF, FOUND, LOOPBACK, Lookup, NO_NEIGHBOUR};
use edge_common::verdict::LeftToKernel;
use edge_common::worker::{self, Entry as Worker};
use edge_common::{Address, DropReason, TCP};

use super::source::{pair, unpair};
use crate::state::Packet;
use crate::{clock, maps};

/// Address families, as the kernel's `struct bpf_fib_lookup` has them.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Finds the way of the packet in work to its worker, and gives the frame the VLAN tags that it leaves with. The answer is both
/// MAC addresses as they stand at the start of a frame, and the length of the link header; the interface is noted. Pointers to
/// the frame are worth nothing afterwards.
#[inline(always)]
pub(crate) fn find(ctx: *mut xdp_md, worker: &Worker) -> Result<([u32; 3], usize), DropReason> {
    let mut answer = route_fixed(ctx);
    let packet = crate::state::packet().ok_or(DropReason::Internal)?;
    if answer == ASK {
        let [a, b, c, d] = worker.address.0;
        answer = fib_search(ctx, pair(a, b), pair(c, d));
        // A router would send a packet to the virtual address back to where that is announced: here.
        // SAFETY: the element is this CPU's alone.
        if worker.mode == worker::L2 && unsafe { (*packet).route.is_direct } == 0 {
            answer = NO_ROUTE;
        }
        if answer == 0 {
            // The interfaces that it finds are in no VLAN.
            answer = leave_vlan(ctx);
        }
    }
    match answer {
        0 => {
            // SAFETY: the element is this CPU's alone, and what was called wrote it.
            let (macs, link_len) = unsafe { ((*packet).route.macs, (*packet).network_at) };
            let [a, b, c, d, e, f] = macs.map(u32::from);
            Ok(([a | b << 16, c | d << 16, e | f << 16], link_len as usize & 0x1f))
        }
        NO_ROOM => Err(DropReason::NoHeadroom),
        _ => Err(DropReason::NoRoute),
    }
}

/// What [`route_fixed`] answers, beside the answers of [`fib_search`]: the routes are to be asked, or the frame has no room
/// for a tag.
const ASK: u32 = 3;
const NO_ROOM: u32 = 4;

/// Writes down the way of the packet in work with it, if that is fixed; 0: it is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route_fixed(ctx: *mut xdp_md) -> u32 {
    let Some(packet) = crate::state::packet() else {
        return NO_ROUTE;
    };
    // SAFETY: the element is this CPU's alone.
    let Some(worker) = maps::WORKERS.get(unsafe { (*packet).worker }) else {
        return NO_ROUTE;
    };
    if !is_fixed(worker) {
        return ASK;
    }
    let Ok([a, b, c]) = fixed(ctx, worker) else {
        return NO_ROOM;
    };
    // SAFETY: likewise.
    unsafe {
        (*packet).route.interface = leaves_by(ctx, worker);
        (*packet).route.macs = [a, a >> 16, b, b >> 16, c, c >> 16].map(|half| half as u16);
    }
    if worker.hop == worker::FOUND {
        enter_vlan(ctx, packet, worker.vlan.into())
    } else {
        0
    }
}

/// Takes the packet in work out of all VLANs. Other than 0: there is no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_vlan(ctx: *mut xdp_md) -> u32 {
    match crate::state::packet() {
        Some(packet) => enter_vlan(ctx, packet, 0),
        None => NO_ROUTE,
    }
}

/// Whether a worker's next hop is known without asking for it: configured, or found by userspace, which still looks at routes
/// and neighbours. One in a VLAN is taken as it is, because [`fib_search`] knows no VLANs.
#[inline(always)]
pub(crate) fn is_fixed(worker: &Worker) -> bool {
    let (first, second) = next_hop(worker);
    let Some(&watched_until) = maps::WATCHED_UNTIL.get(0) else {
        return false;
    };
    // No branch for each kind of next hop, each of which the verifier would follow: for ever unless it was found.
    let for_ever = u64::from(worker.hop) | u64::from(worker.vlan) << 32;
    let until = watched_until | u64::from(for_ever != u64::from(worker::FOUND)).wrapping_neg();
    first | u32::from(second) != 0 && clock::tick() <= until
}

#[inline(always)]
fn next_hop(worker: &Worker) -> (u32, u16) {
    let [a, b, c, d, e, f] = worker.next_hop;
    (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
}

/// The interface that packets to a worker leave by, if its next hop is fixed; 0: the one that this one came by.
#[inline(always)]
pub(crate) fn leaves_by(ctx: *mut xdp_md, worker: &Worker) -> u32 {
    // SAFETY: the context is the kernel's.
    if worker.interface == 0 || worker.interface == unsafe { (*ctx).ingress_ifindex } {
        0
    } else {
        worker.interface
    }
}

/// Both MAC addresses on the way to a worker whose next hop is fixed.
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

/// Puts the packet in work into a VLAN, or out of all (0), whatever tags it has; its MAC addresses are still to be written.
/// Other than 0: there is no room.
#[inline(always)]
fn enter_vlan(ctx: *mut xdp_md, packet: *mut Packet, vlan: u32) -> u32 {
    // SAFETY: the element is this CPU's alone, and `headers` wrote it.
    unsafe {
        let (link_len, is_v6) = ((*packet).network_at, (*packet).network.is_v6());
        match retag(ctx, link_len, is_v6, vlan) {
            Some(link_len) => {
                (*packet).network_at = link_len;
                0
            }
            None => NO_ROOM,
        }
    }
}

/// Gives a frame the link header of a VLAN, or of none (0), for one of so many bytes; its MAC addresses are still to be
/// written. The answer is the new length; `None`: there is no room.
#[inline(always)]
pub(crate) fn retag(ctx: *mut xdp_md, link_len: u32, is_v6: bool, vlan: u32) -> Option<u32> {
    let wanted = if vlan == 0 {
        ETHERNET_LEN
    } else {
        ETHERNET_LEN + VLAN_LEN
    } as u32;
    if vlan == 0 && link_len == wanted {
        return Some(wanted);
    }
    let ethertype = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }.to_be_bytes();
    let (tag, id) = (ETHERTYPE_VLAN.to_be_bytes(), (vlan as u16).to_be_bytes());
    let mut tagged = [tag[0], tag[1], id[0], id[1], ethertype[0], ethertype[1]];
    let mut plain = ethertype;
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    let done = unsafe {
        if bpf_xdp_adjust_head(ctx, link_len as i32 - wanted as i32) != 0 {
            return None;
        }
        if vlan == 0 {
            bpf_xdp_store_bytes(ctx, ETHERNET_LEN as u32 - 2, plain.as_mut_ptr().cast(), 2)
        } else {
            bpf_xdp_store_bytes(ctx, ETHERNET_LEN as u32 - 2, tagged.as_mut_ptr().cast(), 6)
        }
    };
    (done == 0).then_some(wanted)
}

/// Why no way to an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The kernel's stack may find one: it asks for the MAC address, and needs no help of a driver to send.
    StackMayKnow,
    /// There is none.
    NoRoute,
}

/// What [`fib_search`] answers likewise.
const STACK_MAY_KNOW: u32 = 1;
const NO_ROUTE: u32 = 2;

/// Both MAC addresses on the way to any address, in halves.
#[inline(always)]
pub(crate) fn to_address(
    ctx: *mut xdp_md,
    packet: *mut Packet,
    address: Address,
) -> Result<[u16; 6], Failure> {
    let [a, b, c, d] = address.0;
    match fib_search(ctx, pair(a, b), pair(c, d)) {
        // SAFETY: the element is this CPU's alone, and the search wrote it.
        0 => Ok(unsafe { (*packet).route.macs }),
        STACK_MAY_KNOW => Err(Failure::StackMayKnow),
        _ => Err(Failure::NoRoute),
    }
}

/// Asks the routes for the next hop to an address, and writes it down with the packet; 0: there is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fib_search(ctx: *mut xdp_md, high: u64, low: u64) -> u32 {
    let Some(packet) = crate::state::packet() else {
        return NO_ROUTE;
    };
    let address = unpair(high, low);
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: a structure of numbers and unions of numbers, for which zeroes are a value.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    match look_up(ctx, &mut lookup, came_by, address) {
        FOUND => {}
        NO_NEIGHBOUR => return STACK_MAY_KNOW,
        _ => return NO_ROUTE,
    }
    if !note(packet, &lookup, came_by) {
        return STACK_MAY_KNOW;
    }
    // SAFETY: the element is this CPU's alone.
    unsafe { (*packet).route.is_direct = u32::from(hop_of(&lookup) == address) };
    0
}

/// Writes the way that was found down with the packet in work; false if XDP may not send by its interface.
#[inline(always)]
fn note(packet: *mut Packet, lookup: &FibLookup, came_by: u32) -> bool {
    let interface = if lookup.ifindex == came_by {
        0
    } else {
        lookup.ifindex
    };
    if interface != 0 && maps::DEVICES.get_ifindex(interface).is_none() {
        return false;
    }
    let pair = |mac: &[u8; 6], at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    let (to, from) = (&lookup.dmac, &lookup.smac);
    // SAFETY: the element is this CPU's alone.
    unsafe {
        (*packet).route.interface = interface;
        (*packet).route.macs = [
            pair(to, 0),
            pair(to, 2),
            pair(to, 4),
            pair(from, 0),
            pair(from, 2),
            pair(from, 4),
        ];
    }
    true
}

/// What [`route_answer`] answers if it found the way; else the index of a [`LeftToKernel`].
pub(crate) const ANSWERABLE: u32 = u32::MAX;

/// Finds the way of an answer to the packet in work, from its destination to its source, and writes it down with the packet.
///
/// It is asked for as that of a packet which the node itself sends: by the loopback interface. So it is the one that an answer
/// of the node's own socket would take, whatever rules there are, and the interface that the packet came by need not forward.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route_answer(ctx: *mut xdp_md) -> u32 {
    let Some(packet) = crate::state::packet() else {
        return LeftToKernel::NoRoute.index();
    };
    // SAFETY: the element is this CPU's alone, and `headers` wrote what is read.
    let (network, transport) = unsafe { (&(*packet).network, &(*packet).transport) };
    // SAFETY: a structure of numbers and unions of numbers, for which zeroes are a value.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    let [a, b, c, d] = network.destination.0;
    if network.is_v6() {
        lookup.__bindgen_anon_3.ipv6_src = [a, b, c, d];
    } else {
        lookup.__bindgen_anon_3.ipv4_src = d;
    }
    lookup.l4_protocol = TCP;
    lookup.sport = (transport.destination_port as u16).to_be();
    lookup.dport = (transport.source_port as u16).to_be();
    match look_up(ctx, &mut lookup, LOOPBACK, network.source) {
        FOUND => {}
        NO_NEIGHBOUR => return LeftToKernel::NoNeighbour.index(),
        FORWARDING_IS_OFF => return LeftToKernel::ForwardingOff.index(),
        _ => return LeftToKernel::NoRoute.index(),
    }
    // SAFETY: the value is copied out at once.
    let Some(&uplink) = (unsafe { maps::UPLINKS.get(lookup.ifindex) }) else {
        return LeftToKernel::OtherInterface.index();
    };
    // SAFETY: the context is the kernel's.
    if !note(packet, &lookup, unsafe { (*ctx).ingress_ifindex }) {
        return LeftToKernel::OtherInterface.index();
    }
    let mss = if network.is_v6() { uplink.mss6 } else { uplink.mss4 };
    // SAFETY: the element is this CPU's alone.
    unsafe { (*packet).route.mss = u32::from(mss) };
    ANSWERABLE
}

/// Asks the kernel, by a structure of zeroes.
#[inline(always)]
fn look_up(ctx: *mut xdp_md, lookup: &mut FibLookup, came_by: u32, address: Address) -> i32 {
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
    let answer = unsafe { bpf_fib_lookup(ctx.cast(), &raw mut *lookup, len, 0) };
    answer as i32
}

/// Who an answer sends the frame to: the kernel writes a router's address over the one that was asked for.
#[inline(always)]
fn hop_of(lookup: &FibLookup) -> Address {
    // SAFETY: all members of the union are numbers.
    unsafe {
        if lookup.family == AF_INET {
            Address::v4_word(lookup.__bindgen_anon_4.ipv4_dst)
        } else {
            Address(lookup.__bindgen_anon_4.ipv6_dst)
        }
    }
}

/// Answers a [`Lookup`] in its place.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext) -> u32 {
    let mut question = Lookup::default();
    let frame: *mut xdp_md = ctx.as_ptr().cast();
    let len = size_of::<Lookup>() as u32;
    // SAFETY: the helper checks the frame's bounds, and the buffer is as long as it is told.
    if unsafe { bpf_xdp_load_bytes(frame, 0, (&raw mut question).cast(), len) } != 0 {
        return XDP_ABORTED;
    }
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*frame).ingress_ifindex };
    // SAFETY: a structure of numbers and unions of numbers, for which zeroes are a value.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    let answer = look_up(frame, &mut lookup, came_by, question.address);
    let [a, b, c, d, e, f] = lookup.dmac;
    let [g, h, i, j, k, l] = lookup.smac;
    let mut found = Lookup {
        next_hop: hop_of(&lookup),
        interface: lookup.ifindex,
        answer,
        macs: [a, b, c, d, e, f, g, h, i, j, k, l],
        now: clock::tick(),
        ..question
    };
    // SAFETY: likewise.
    if unsafe { bpf_xdp_store_bytes(frame, 0, (&raw mut found).cast(), len) } != 0 {
        return XDP_ABORTED;
    }
    XDP_DROP
}
