//! The answer to any other SYN, and the judgement of an ACK: by way of map memory, wherever the headers begin.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use edge_common::header::{IPV4_LEN, IPV6_LEN, TCP_LEN};
use edge_common::malformed::tcp_flags::{ACK, RST, SYN};
use edge_common::parse::Network;
use edge_common::syncookie::{MAX_OPTIONS, OFFER_WORDS, Offer, SYN_ACK_WORDS, SynAck};

use super::syn_ack::{IPV6_WORDS, MSS_ONLY_LEN, SHORTEST_FRAME, header4, header6, syn_ack, takes_options};
use crate::opaque::opaque;
use crate::stage::socket;
use crate::{maps, state};

/// Where a packet's headers are, as one number: a function of its own gets no structures.
const IS_V6: u32 = 1 << 31;
/// The answer offers the MSS of the way that was found for it.
pub(super) const BY_ROUTE: u32 = 1 << 30;
const OPTIONS_SHIFT: u32 = 16;
const OFFSET: u32 = 0xffff;

/// Offset of the TCP header, length of its options, family.
#[inline(always)]
pub(super) fn place(network: &Network, offset: usize, options_len: usize) -> u32 {
    placed(network.is_v6(), offset) | (options_len as u32) << OPTIONS_SHIFT
}

/// The same without options.
#[inline(always)]
fn placed(is_v6: bool, offset: usize) -> u32 {
    let family = if is_v6 { IS_V6 } else { 0 };
    family | (offset as u32 & OFFSET)
}

/// Answers of [`syncookie_answer`].
pub(super) const ANSWERED: u32 = 0;
pub(super) const NOT_ANSWERED: u32 = 1;

/// Answers of [`syncookie_check`].
pub(super) const NOTHING: u32 = 0;
pub(super) const COOKIE: u32 = 1;
pub(super) const CONNECTION: u32 = 2;

/// Headers that are worked on, in map memory, because the stack has no room for them.
#[repr(C)]
pub(crate) struct Scratch {
    /// IP header as it came.
    ip: [u32; IPV6_WORDS],
    /// TCP header as it came,
    tcp: [u8; TCP_LEN],
    /// and its options.
    options: [u8; MAX_OPTIONS],
    /// IP header of the answer,
    answer: [u32; IPV6_WORDS],
    /// and its TCP header.
    tcp_answer: [u32; SYN_ACK_WORDS],
    /// The header that the cookie is made of.
    syn: [u32; 6],
}

/// Reads IP and TCP header.
#[inline(always)]
fn load(ctx: *mut xdp_md, scratch: *mut Scratch, place: u32) -> bool {
    let offset = place & OFFSET;
    let options_len = (opaque((place >> OPTIONS_SHIFT) as usize) & 0xff).min(MAX_OPTIONS);
    // SAFETY: the scratch memory is this CPU's, and the helper checks the frame's bounds.
    unsafe {
        let ip = (&raw mut (*scratch).ip).cast();
        let tcp = (&raw mut (*scratch).tcp).cast();
        let ip_loaded = if place & IS_V6 != 0 {
            bpf_xdp_load_bytes(ctx, offset.wrapping_sub(IPV6_LEN as u32), ip, IPV6_LEN as u32)
        } else {
            bpf_xdp_load_bytes(ctx, offset.wrapping_sub(IPV4_LEN as u32), ip, IPV4_LEN as u32)
        };
        ip_loaded == 0 && bpf_xdp_load_bytes(ctx, offset, tcp, (TCP_LEN + options_len) as u32) == 0
    }
}

/// Turns the SYN into its SYN-ACK. It is a function of its own, with numbers for arguments, so that the verifier looks
/// at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syncookie_answer(ctx: *mut xdp_md, place: u32) -> u32 {
    let (Some(config), Some(scratch)) = (maps::CONFIG.get(0), maps::SYN_SCRATCH.get_ptr_mut(0)) else {
        return NOT_ANSWERED;
    };
    if !load(ctx, scratch, place) {
        return NOT_ANSWERED;
    }
    // SAFETY: the element is this CPU's alone, and nothing interrupts the program to run another that changes it.
    let scratch = unsafe { &mut *scratch };
    let is_v6 = place & IS_V6 != 0;
    let settings = &config.syn_cookies;
    let tcp = &scratch.tcp;
    let options_len = (place >> OPTIONS_SHIFT & 0xff) as usize;
    let options = &scratch.options;
    let mut offered = [0; OFFER_WORDS];
    for (word, bytes) in offered.iter_mut().zip(options.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    let offer = Offer::read(offered, options_len);
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let (ports, sequence) = (word(0), word(4));
    let Some(cookie) = cookie(
        &mut scratch.ip,
        &mut scratch.syn,
        is_v6,
        ports,
        sequence,
        offer.mss,
    ) else {
        return NOT_ANSWERED;
    };
    let with_options = takes_options(settings, &offer);
    let words = SynAck::words((TCP_LEN + options_len) / 4, with_options);
    let mut syn_ack = syn_ack(settings, &offer, with_options, is_v6, ports, sequence, cookie);
    if place & BY_ROUTE != 0
        && let Some(packet) = state::packet()
    {
        // SAFETY: the element is this CPU's alone, and the search for the way wrote it.
        syn_ack.mss = unsafe { (*packet).route.mss } as u16;
    }
    let (ip, out) = (&scratch.ip, &mut scratch.answer);
    let (header_len, len) = if is_v6 {
        let addresses = (2..IPV6_WORDS).fold(0, |sum, at| sum + u64::from(u32::from_be(ip[at])));
        syn_ack.write(&mut scratch.tcp_answer, words, &offer, with_options, addresses);
        let (client, service) = ([ip[2], ip[3], ip[4], ip[5]], [ip[6], ip[7], ip[8], ip[9]]);
        *out = header6(client, service, words);
        (IPV6_LEN, words * 4)
    } else {
        let addresses = u64::from(u32::from_be(ip[3])) + u64::from(u32::from_be(ip[4]));
        syn_ack.write(&mut scratch.tcp_answer, words, &offer, with_options, addresses);
        let [a, b, c, d, e] = header4(ip[3], ip[4], words);
        *out = [a, b, c, d, e, 0, 0, 0, 0, 0];
        (IPV4_LEN, words * 4)
    };
    send(ctx, scratch, place & OFFSET, header_len, len)
}

/// The kernel's cookie for a SYN. The helper reads no option but the MSS, so it gets a header that has no other: one
/// of a length that the verifier knows.
#[inline(always)]
fn cookie(
    ip: &mut [u32; IPV6_WORDS],
    syn: &mut [u32; 6],
    is_v6: bool,
    ports: u32,
    sequence: u32,
    mss: u32,
) -> Option<u32> {
    // Defaults of RFC 9293 3.7.1.
    let mss = match mss {
        0 if is_v6 => 1220,
        0 => 536,
        mss => mss,
    };
    *syn = [
        ports.to_be(),
        sequence.to_be(),
        0,
        (6 << 28 | SYN << 16).to_be(),
        0,
        (0x0204 << 16 | mss & 0xffff).to_be(),
    ];
    let (ip, tcp) = (ip.as_mut_ptr(), syn.as_mut_ptr().cast());
    // SAFETY: both headers are whole.
    let cookie = unsafe {
        if is_v6 {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), tcp, MSS_ONLY_LEN)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp, MSS_ONLY_LEN)
        }
    };
    (cookie >= 0).then_some(cookie as u32)
}

/// Writes the answer in the place of the SYN, the MAC addresses exchanged and the frame as long as it takes. `offset` is
/// where the TCP header begins.
#[inline(always)]
fn send(ctx: *mut xdp_md, scratch: &mut Scratch, offset: u32, header_len: usize, tcp_len: usize) -> u32 {
    let mut macs = [0_u16; 6];
    let tcp_len = opaque(tcp_len).clamp(1, SYN_ACK_WORDS * 4);
    let frame_len = (offset as usize + tcp_len).max(SHORTEST_FRAME) as i32;
    let ip_at = offset.wrapping_sub(header_len as u32);
    let (ip, tcp) = (
        scratch.answer.as_mut_ptr().cast(),
        scratch.tcp_answer.as_mut_ptr().cast(),
    );
    // SAFETY: the helpers check the frame's bounds, and the buffers are as long as they are told.
    unsafe {
        let now_len = ((*ctx).data_end - (*ctx).data) as i32;
        if frame_len != now_len && bpf_xdp_adjust_tail(ctx, frame_len - now_len) != 0 {
            return NOT_ANSWERED;
        }
        if bpf_xdp_load_bytes(ctx, 0, (&raw mut macs).cast(), 12) != 0 {
            return NOT_ANSWERED;
        }
        let [a, b, c, d, e, f] = macs;
        macs = [d, e, f, a, b, c];
        let header = if header_len == IPV6_LEN {
            bpf_xdp_store_bytes(ctx, ip_at, ip, IPV6_LEN as u32)
        } else {
            bpf_xdp_store_bytes(ctx, ip_at, ip, IPV4_LEN as u32)
        };
        let sent = header == 0
            && bpf_xdp_store_bytes(ctx, 0, (&raw mut macs).cast(), 12) == 0
            && bpf_xdp_store_bytes(ctx, offset, tcp, tcp_len as u32) == 0;
        if sent { ANSWERED } else { NOT_ANSWERED }
    }
}

/// What an ACK acknowledges: a cookie of this node, a connection that it has, or nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syncookie_check(ctx: *mut xdp_md, place: u32) -> u32 {
    let Some(scratch) = maps::SYN_SCRATCH.get_ptr_mut(0) else {
        return NOTHING;
    };
    if !load(ctx, scratch, place) {
        return NOTHING;
    }
    if is_cookie(scratch, place) {
        return COOKIE;
    }
    // SAFETY: the element is this CPU's alone.
    let (ip, tcp) = unsafe { (&(*scratch).ip, &(*scratch).tcp) };
    let ports = u32::from_ne_bytes([tcp[0], tcp[1], tcp[2], tcp[3]]);
    let connects = if place & IS_V6 != 0 {
        socket::has_connection6(
            ctx,
            [ip[2], ip[3], ip[4], ip[5], ip[6], ip[7], ip[8], ip[9], ports],
        )
    } else {
        socket::has_connection4(ctx, [ip[3], ip[4], ports])
    };
    if connects { CONNECTION } else { NOTHING }
}

/// Whether the headers that were loaded are those of a segment that brings a cookie, XDP's or the kernel's own.
#[inline(always)]
fn is_cookie(scratch: *mut Scratch, place: u32) -> bool {
    // SAFETY: the element is this CPU's alone; both headers in it are whole.
    let answer = unsafe {
        let (ip, tcp) = (
            (&raw mut (*scratch).ip).cast::<u8>(),
            (&raw mut (*scratch).tcp).cast(),
        );
        if place & IS_V6 != 0 {
            bpf_tcp_raw_check_syncookie_ipv6(ip.cast(), tcp)
        } else {
            bpf_tcp_raw_check_syncookie_ipv4(ip.cast(), tcp)
        }
    };
    answer == 0
}

/// Whether the segment whose TCP header begins at `offset`, behind an IP header without options, opens a connection by a
/// cookie of this node. So do one of 2^29 segments of other connections (`__cookie_v4_check`: four values of the MSS and two
/// minutes are right, of 2^32), so whoever can asks first whether the connection is there.
#[inline(always)]
pub(crate) fn brings_cookie(ctx: *mut xdp_md, is_v6: bool, offset: usize) -> bool {
    syncookie_brought(ctx, placed(is_v6, offset)) != 0
}

/// See [`brings_cookie`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syncookie_brought(ctx: *mut xdp_md, place: u32) -> u32 {
    let Some(scratch) = maps::SYN_SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    if !load(ctx, scratch, place) {
        return 0;
    }
    // SAFETY: the element is this CPU's alone.
    let flags = u32::from(unsafe { (*scratch).tcp[13] });
    u32::from(flags & (ACK | RST | SYN) == ACK && is_cookie(scratch, place))
}
