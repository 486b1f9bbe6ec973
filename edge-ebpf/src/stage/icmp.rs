//! Answers echo requests to virtual addresses, lets errors follow the flow that they quote, and refuses what is no use
//! there.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::programs::XdpContext;
use edge_common::header::IPV6_LEN;
use edge_common::icmp::{self, ECHO_REPLY, ECHO_REPLY_V6, Message};
use edge_common::parse::Network;
use edge_common::verdict::{ReplyReason, Trace};
use edge_common::vip::Entry;
use edge_common::{DropReason, PassReason, Verdict, checksum};

use super::source::Trust;
use super::{flood, penalty, prefixes, source, vip};
use crate::maps;
use crate::packet::Frame;
use crate::state::{self, DIRECT, settle_later};

/// Time to live and hop limit of an answer, as the kernel's.
const TTL: u8 = 64;

/// Judges a packet to a virtual address that has no ports, whose IP header was read and noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn icmp(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let bytes = Frame::new(&context).len();
    let verdict = match judge(&context) {
        Ok(Fate::Verdict(verdict)) => verdict,
        Ok(Fate::Quotes) => return QUOTES,
        Err(reason) => Verdict::drop(reason).into(),
    };
    settle_later(verdict, bytes)
}

/// What [`icmp`] answers if the packet goes where the flow goes that it quotes ([`quoted`](super::quoted)).
pub(crate) const QUOTES: u32 = u32::MAX - 3;

/// What becomes of a packet without ports.
enum Fate {
    /// This.
    Verdict(Trace),
    /// It is an error that may be about a flow of a VIP with workers elsewhere.
    Quotes,
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Result<Fate, DropReason> {
    let for_stack = Ok(Fate::Verdict(Verdict::Pass(PassReason::OtherProtocol).into()));
    let (Some(config), Some(packet)) = (maps::CONFIG.get(0), state::packet()) else {
        return for_stack;
    };
    // SAFETY: the element is this CPU's alone, and all were written.
    let (network, icmp_at, came) = unsafe {
        (
            (*packet).network,
            (*packet).transport_at,
            state::came(config, &*packet),
        )
    };
    let marker = vip::marker(network.destination, config.flags).unwrap_or(Entry::marker(0));
    let forwards = state::forwards(marker.flags, came);
    let is_elsewhere = forwards != 0 && marker.is_elsewhere();
    // The node's own address: it answers for itself.
    if marker.has(Entry::SHARED) && forwards == 0 {
        return for_stack;
    }
    let marks = prefixes::marks(config, network.source);
    let trust = source::check(config, network.source, marks)?;
    let mut frame = Frame::behind(ctx, icmp_at as usize);
    let message = icmp::message(&mut frame, &network)?;
    if trust == Trust::Ordinary {
        penalty::check(config, network.source, marks, false)?;
        flood::check(config, network.source, false)?;
    }
    match message {
        Message::Error if forwards != 0 => {
            if network.has_options() {
                return Err(DropReason::IpOptions);
            }
            Ok(Fate::Quotes)
        }
        Message::NeighbourDiscovery if was_routed(ctx.ctx, icmp_at) => Err(DropReason::IcmpType),
        Message::NeighbourDiscovery => for_stack,
        Message::ForStack if is_elsewhere => Err(DropReason::NoService),
        Message::Echo if is_elsewhere && came != DIRECT => Err(DropReason::NoService),
        // An answer would leave by the tunnel's way, which leads to the balancer.
        Message::Echo if marker.has(Entry::SHARED) || came != DIRECT => for_stack,
        Message::Error | Message::ForStack => for_stack,
        Message::Echo => {
            answer(ctx.ctx, &network, icmp_at)?;
            Ok(Fate::Verdict(Trace {
                kind: Trace::REPLY,
                reason: ReplyReason::Echo.index(),
                vip: Trace::NONE,
                worker: Trace::NONE,
                flow: Trace::NONE,
            }))
        }
    }
}

/// Whether an IPv6 packet came by a router: its hop limit is no longer what it was sent with. `behind` is where its header
/// ends.
#[inline(always)]
fn was_routed(ctx: *mut xdp_md, behind: u32) -> bool {
    let mut limit = 0_u8;
    let at = behind.wrapping_sub(IPV6_LEN as u32) + 7;
    // SAFETY: the helper checks the frame's bounds, and the buffer is as long as it is told.
    let is_loaded = unsafe { bpf_xdp_load_bytes(ctx, at, (&raw mut limit).cast(), 1) == 0 };
    !is_loaded || limit != u8::MAX
}

/// Turns an echo request into its answer: addresses change places, which changes no checksum; type and time to live do.
#[inline(always)]
fn answer(ctx: *mut xdp_md, network: &Network, icmp_at: u32) -> Result<(), DropReason> {
    let is_v6 = network.is_v6();
    let reply = if is_v6 { ECHO_REPLY_V6 } else { ECHO_REPLY };
    let mut macs = [0_u16; 6];
    let mut icmp = [0_u8; 8];
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    let is_loaded = unsafe {
        bpf_xdp_load_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) == 0
            && bpf_xdp_load_bytes(ctx, icmp_at, icmp.as_mut_ptr().cast(), 8) == 0
    };
    if !is_loaded {
        return Err(DropReason::TruncatedIcmp);
    }
    let [a, b, c, d, e, f] = macs;
    macs = [d, e, f, a, b, c];
    let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
    let [_, _, _, _, a, b, c, d] = icmp;
    let rest = u32::from_ne_bytes([a, b, c, d]);
    let [high, low] = icmp::echo_checksum(sum, rest, network.payload_len(), is_v6).to_be_bytes();
    icmp = [reply, 0, high, low, a, b, c, d];
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
