//! Tells senders of packets that do not fit into their tunnel how large they may be (RFC 1191, RFC 8201).

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use edge_common::flood::Rate;
use edge_common::icmp::{ERROR4_WORDS, ERROR6_WORDS, QUOTE4, QUOTE6, TooBig};
use edge_common::verdict::{ReplyReason, Trace};
use edge_common::{DropReason, Verdict};

use crate::opaque::opaque;
use crate::settle::{dropped, settle};
use crate::state::{self, DIRECT, Packet};
use crate::{clock, maps};

/// Errors that each CPU sends: a thousand a second, fifty at once, as the kernel has long had it (`icmp_msgs_per_sec`). A
/// sender needs one, and packets that are too big again are not worth more than dropping them.
const RATE: Rate = Rate::new(1000, 50);

/// Room for an error: headers and quote.
#[repr(C)]
pub(crate) struct Scratch {
    headers: [u32; ERROR6_WORDS],
    quote: [u32; QUOTE6 / 4],
}

/// Answers the packet in work, which is too big; the answer is the XDP action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_too_big(ctx: *mut xdp_md) -> u32 {
    let context = XdpContext::new(ctx);
    let Some(packet) = state::packet() else {
        return settle(&context, Verdict::drop(DropReason::TooBig).into(), 0);
    };
    // SAFETY: the element is this CPU's alone.
    let packet = unsafe { &*packet };
    let (vip, bytes) = (u32::from(packet.vip.vip), packet.frame_len);
    if let Err(reason) = answer(ctx, packet) {
        return dropped(ctx, reason.index(), vip, bytes);
    }
    let answered = Trace {
        kind: Trace::REPLY,
        reason: ReplyReason::TooBig.index(),
        vip,
        worker: Trace::NONE,
        flow: Trace::NONE,
    };
    settle(&context, answered, u64::from(bytes))
}

/// DF of an IPv4 header, in the byte that holds the flags.
const DONT_FRAGMENT: u8 = 0x40;

/// Bytes that `bpf_csum_diff` takes at a time on all kernels.
const CHUNK: usize = 512;

#[inline(always)]
fn answer(ctx: *mut xdp_md, packet: &Packet) -> Result<(), DropReason> {
    let is_v6 = packet.network.is_v6();
    let at = packet.network_at & 0x1f;
    let Some(config) = maps::CONFIG.get(0) else {
        return Err(DropReason::TooBig);
    };
    // The answer would leave towards the balancer.
    if state::came(config, packet) != DIRECT {
        return Err(DropReason::TooBig);
    }
    if !is_v6 {
        let mut flags = [0_u8; 1];
        // SAFETY: the helper checks the frame's bounds, and the buffer is as long as it is told.
        let is_loaded = unsafe { bpf_xdp_load_bytes(ctx, at + 6, flags.as_mut_ptr().cast(), 1) } == 0;
        // Who allows fragments is not told to send less (RFC 1812 4.3.3.3), and none are made here.
        if !is_loaded || flags[0] & DONT_FRAGMENT == 0 {
            return Err(DropReason::TooBig);
        }
    }
    let (Some(limit), Some(scratch)) = (maps::ICMP_LIMIT.get_ptr_mut(0), maps::ICMP_SCRATCH.get_ptr_mut(0))
    else {
        return Err(DropReason::Internal);
    };
    // SAFETY: the element is this CPU's alone.
    unsafe {
        *limit = RATE.take(*limit, clock::now()).ok_or(DropReason::IcmpRate)?;
    }
    let most = if is_v6 { QUOTE6 } else { QUOTE4 };
    let len = packet.network.header_len() + packet.network.payload_len();
    // Whole words, of which the checksum is made, and for the verifier not none.
    let len = opaque(len.min(most) & !3).clamp(4, QUOTE6);
    // SAFETY: the scratch memory is this CPU's, and the helpers check the frame's bounds.
    let scratch = unsafe { &mut *scratch };
    let quote = scratch.quote.as_mut_ptr().cast::<u8>();
    // SAFETY: as above.
    let quote_sum = unsafe {
        if bpf_xdp_load_bytes(ctx, at, quote.cast(), len as u32) != 0 {
            return Err(DropReason::Internal);
        }
        sum(quote, len)?
    };
    let error = TooBig {
        mtu: packet.limit,
        quote_len: len as u32,
        quote_sum,
    };
    let (from, to) = (packet.network.destination, packet.network.source);
    let header_len = if is_v6 {
        scratch.headers = error.ipv6(from, to);
        ERROR6_WORDS * 4
    } else {
        let words = error.ipv4(from, to);
        let [a, b, c, d, e, f, g, ..] = &mut scratch.headers;
        [*a, *b, *c, *d, *e, *f, *g] = words;
        ERROR4_WORDS * 4
    } as u32;
    send(ctx, scratch, at, header_len, len as u32, packet.frame_len)
}

/// Sum of the quoted words.
///
/// # Safety
/// `quote` points to [`QUOTE6`] bytes.
#[inline(always)]
unsafe fn sum(quote: *mut u8, len: usize) -> Result<u64, DropReason> {
    let mut sum = 0_u64;
    for chunk in 0..QUOTE6.div_ceil(CHUNK) {
        let start = chunk * CHUNK;
        if len <= start {
            break;
        }
        let room = if QUOTE6 - start < CHUNK {
            QUOTE6 - start
        } else {
            CHUNK
        };
        let size = opaque(len - start).min(room) & !3;
        // SAFETY: the chunk ends before the quote does.
        let part =
            unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, quote.add(start).cast(), size as u32, 0) };
        if part < 0 {
            return Err(DropReason::Internal);
        }
        sum += part as u64;
    }
    Ok(sum)
}

/// Writes the error in the packet's place behind the link header, whose MAC addresses change places, and makes the frame
/// as long as it is.
#[inline(always)]
fn send(
    ctx: *mut xdp_md,
    scratch: &mut Scratch,
    at: u32,
    header_len: u32,
    quote_len: u32,
    frame_len: u32,
) -> Result<(), DropReason> {
    let mut macs = [0_u16; 6];
    let headers = scratch.headers.as_mut_ptr().cast();
    let quote = scratch.quote.as_mut_ptr().cast();
    let quote_len = opaque(quote_len as usize).clamp(4, QUOTE6) as u32;
    let change = (at + header_len + quote_len) as i32 - frame_len as i32;
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    let is_sent = unsafe {
        bpf_xdp_load_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) == 0
            && bpf_xdp_adjust_tail(ctx, change) == 0
            && {
                let [a, b, c, d, e, f] = macs;
                macs = [d, e, f, a, b, c];
                bpf_xdp_store_bytes(ctx, 0, macs.as_mut_ptr().cast(), 12) == 0
            }
            && {
                if header_len == (ERROR6_WORDS * 4) as u32 {
                    bpf_xdp_store_bytes(ctx, at, headers, (ERROR6_WORDS * 4) as u32) == 0
                } else {
                    bpf_xdp_store_bytes(ctx, at, headers, (ERROR4_WORDS * 4) as u32) == 0
                }
            }
            && bpf_xdp_store_bytes(ctx, at + header_len, quote, quote_len) == 0
    };
    if is_sent {
        Ok(())
    } else {
        Err(DropReason::Internal)
    }
}
