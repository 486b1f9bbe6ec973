//! Answers SYNs with cookies, and holds each VIP to its rate of new connections.
//!
//! The SYN-ACK leaves by the interface that the SYN came in by, and nothing is remembered. The client's ACK goes up
//! the stack, whose listener takes the cookie for one of its own: both are made by the same secret.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use edge_common::header::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN};
use edge_common::malformed::tcp_flags::{ACK, RST, SYN};
use edge_common::parse::{Network, Transport};
use edge_common::syncookie::{
    Guard, Handshake, MAX_OPTIONS, OFFER_WORDS, Offer, SYN_ACK_WORDS, Settings, SynAck,
};
use edge_common::verdict::ReplyReason;
use edge_common::{Config, DropReason, TCP, Verdict, checksum};

use super::socket;
use crate::opaque::opaque;
use crate::word::{load as load_word, store};
use crate::{clock, maps};

/// What the stage says of a packet that may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is a packet as any.
    Ordinary,
    /// It brings a right cookie, and so opens a connection whose SYN nobody has seen.
    Opens,
}

/// What the stage looks at.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'p> {
    /// IP header.
    pub(crate) network: &'p Network,
    /// TCP header.
    pub(crate) transport: &'p Transport,
    /// Where it begins.
    pub(crate) offset: usize,
    /// The Ethernet, IP and TCP headers stand right behind each other, none but the last with options.
    pub(crate) is_ordinary: bool,
}

/// Answers a SYN while cookies are in use, lets an ACK pass that brings one, and refuses new connections above the
/// VIP's rate. Cookies are those of this node's stack, so they are of no use to workers elsewhere; and an answer leaves by
/// the way the SYN came, which for one out of a tunnel leads to the balancer. `is_local`: neither is the case.
#[inline(always)]
pub(crate) fn check(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment<'_>,
    vip: u32,
    is_local: bool,
) -> Result<Admission, Verdict> {
    let Segment {
        network,
        transport,
        offset,
        ..
    } = *segment;
    if !config.has(Config::HAS_VIP_GUARDS) || transport.protocol != TCP as u32 {
        return Ok(Admission::Ordinary);
    }
    let Some(guard) = maps::VIP_GUARDS.get_ptr_mut(vip) else {
        return Ok(Admission::Ordinary);
    };
    let dropped = |reason| Verdict::Drop {
        reason,
        vip: Some(vip),
    };
    let now = clock::inlined();
    if transport.opens_connection {
        if is_local
            && uses_cookies_now(config, guard, network, transport, now)
            && !is_for_the_kernel(guard, now)
        {
            // A client's SYN has no IP options, and the answer has no place for them.
            if !network.is_plain() {
                return Err(dropped(DropReason::SynOptions));
            }
            return Err(match answer(ctx, config, segment) {
                ANSWERED => Verdict::Reply {
                    reason: ReplyReason::SynCookie,
                    vip,
                },
                _ => dropped(DropReason::NoSynCookie),
            });
        }
        take(config, guard, now).map_err(dropped)?;
        return Ok(Admission::Ordinary);
    }
    if !is_local || transport.tcp_flags & (ACK | RST | SYN) != ACK {
        return Ok(Admission::Ordinary);
    }
    if !is_in_use(config, guard, now) {
        if config.has(Config::COOKIES_AUTO) && ends_handshake(network, transport) && network.is_plain() {
            // All SYNs are answered with cookies (`tcp_syncookies=2`), the kernel's own if not XDP's.
            if syncookie_check(ctx.ctx, place(network, offset, 0)) == COOKIE {
                answered(config, guard, now);
            }
        }
        return Ok(Admission::Ordinary);
    }
    if !network.is_plain() {
        return Err(dropped(DropReason::BadSynCookie));
    }
    match syncookie_check(ctx.ctx, place(network, offset, 0)) {
        COOKIE => {
            answered(config, guard, now);
            take(config, guard, now).map_err(dropped)?;
            Ok(Admission::Opens)
        }
        CONNECTION => Ok(Admission::Ordinary),
        _ => Err(dropped(DropReason::BadSynCookie)),
    }
}

/// Whether a VIP's SYNs are answered with cookies.
#[inline(always)]
fn is_in_use(config: &Config, guard: *mut Guard, now: u64) -> bool {
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value.
    config.has(Config::COOKIES_ALWAYS) || unsafe { (*guard).uses_cookies(now) }
}

/// The same, with this SYN counted, unless it was before: a client that hears nothing sends it again.
#[inline(always)]
fn uses_cookies_now(
    config: &Config,
    guard: *mut Guard,
    network: &Network,
    transport: &Transport,
    now: u64,
) -> bool {
    if config.has(Config::COOKIES_ALWAYS) {
        return true;
    }
    if !config.has(Config::COOKIES_AUTO) {
        return false;
    }
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value. Should another CPU write it
    // at the same moment, one of both is lost.
    let guard = unsafe { &mut *guard };
    if begins_handshake(network, transport) {
        guard.count_syn(&config.syn_cookies.unanswered, now)
    } else {
        guard.uses_cookies(now)
    }
}

/// Notes a SYN; false if it was noted before.
#[inline(always)]
fn begins_handshake(network: &Network, transport: &Transport) -> bool {
    let handshake = handshake(network, transport, transport.sequence.wrapping_add(1));
    let Some(noted) = maps::HANDSHAKES.get_ptr_mut(handshake.place) else {
        return true;
    };
    // SAFETY: an element of an array map, for the program's life.
    unsafe {
        let is_new = *noted != handshake.value;
        *noted = handshake.value;
        is_new
    }
}

/// Whether a segment is the first after a SYN that was noted, which is then forgotten.
#[inline(always)]
fn ends_handshake(network: &Network, transport: &Transport) -> bool {
    let handshake = handshake(network, transport, transport.sequence);
    let Some(noted) = maps::HANDSHAKES.get_ptr_mut(handshake.place) else {
        return false;
    };
    // SAFETY: an element of an array map, for the program's life.
    unsafe {
        let ends = *noted == handshake.value;
        if ends {
            *noted = 0;
        }
        ends
    }
}

#[inline(always)]
fn handshake(network: &Network, transport: &Transport, next: u32) -> Handshake {
    let ports = transport.source_port << 16 | transport.destination_port;
    Handshake::new(network.source, ports, next)
}

/// Time between two SYNs that are left to the kernel.
const MARK_NS: u64 = 1_000_000_000;

/// Whether it is time to leave one SYN to the kernel. Its listener accepts a cookie only while it believes that its
/// queue overflowed within two minutes (`tcp_synq_no_recent_overflow`), which it does whenever it sends one itself; and
/// that is for every SYN that it sees (`tcp_syncookies=2`).
#[inline(always)]
fn is_for_the_kernel(guard: *mut Guard, now: u64) -> bool {
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value.
    unsafe {
        let due = now.wrapping_sub((*guard).marked_at) >= MARK_NS;
        if due {
            (*guard).marked_at = now;
        }
        due
    }
}

/// Gives the token of a SYN back whose handshake was completed.
#[inline(always)]
fn answered(config: &Config, guard: *mut Guard, now: u64) {
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value. Should another CPU write it
    // at the same moment, one of both is lost.
    unsafe { (*guard).count_answer(&config.syn_cookies.unanswered, now) }
}

/// Takes a token of the VIP's new connections.
#[inline(always)]
fn take(config: &Config, guard: *mut Guard, now: u64) -> Result<(), DropReason> {
    if !config.has(Config::HAS_VIP_LIMIT) {
        return Ok(());
    }
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value.
    unsafe {
        match config
            .syn_cookies
            .vip_limit
            .take((*guard).connections_full_at, now)
        {
            Some(full_at) => {
                (*guard).connections_full_at = full_at;
                Ok(())
            }
            None => Err(DropReason::VipNewConnections),
        }
    }
}

/// Where a packet's headers are, as one number: a function of its own gets no structures.
const IS_V6: u32 = 1 << 31;
const OPTIONS_SHIFT: u32 = 16;

/// Offset of the TCP header, length of its options, family.
#[inline(always)]
fn place(network: &Network, offset: usize, options_len: usize) -> u32 {
    let family = if network.is_v6() { IS_V6 } else { 0 };
    family | (options_len as u32) << OPTIONS_SHIFT | (offset as u32 & 0xff)
}

/// Answers of [`syncookie_answer`].
const ANSWERED: u32 = 0;
const NOT_ANSWERED: u32 = 1;

/// Answers of [`syncookie_check`].
const NOTHING: u32 = 0;
const COOKIE: u32 = 1;
const CONNECTION: u32 = 2;

const IPV4_WORDS: usize = IPV4_LEN / 4;
const IPV6_WORDS: usize = IPV6_LEN / 4;

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

/// Shortest Ethernet frame, without its check sequence. A SYN may have come in one.
const SHORTEST_FRAME: usize = 60;
const _: () = assert!(ETHERNET_LEN + IPV4_LEN + TCP_LEN < SHORTEST_FRAME);

/// Hop limit and time to live of an answer, as the kernel's.
const TTL: u32 = 64;

/// Reads IP and TCP header.
#[inline(always)]
fn load(ctx: *mut xdp_md, scratch: *mut Scratch, place: u32) -> bool {
    let offset = place & 0xff;
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

/// Turns the SYN into its SYN-ACK.
#[inline(always)]
fn answer(ctx: &XdpContext, config: &Config, segment: &Segment<'_>) -> u32 {
    let Segment {
        network,
        transport,
        offset,
        is_ordinary,
    } = *segment;
    if is_ordinary && transport.header_len as usize == USUAL_SYN_LEN {
        // The family is a constant in each, and so are all offsets.
        let answered = if network.is_v6() {
            answer_in_place(ctx, &config.syn_cookies, true)
        } else {
            answer_in_place(ctx, &config.syn_cookies, false)
        };
        if let Some(answered) = answered {
            return answered;
        }
    }
    let place = place(network, offset, transport.header_len as usize - TCP_LEN);
    syncookie_answer(ctx.ctx, place)
}

/// Length of the TCP header of the SYNs that are answered in their place, without copies: that of most stacks.
const USUAL_SYN_LEN: usize = TCP_LEN + 20;
/// That of a SYN with the MSS for its only option.
const MSS_ONLY_LEN: u32 = 24;

/// Turns an ordinary packet into its answer; `None`: it does not begin with the MSS.
#[inline(always)]
fn answer_in_place(ctx: &XdpContext, settings: &Settings, is_v6: bool) -> Option<u32> {
    let (data, end) = (ctx.data(), ctx.data_end());
    let tcp_at = ETHERNET_LEN + if is_v6 { IPV6_LEN } else { IPV4_LEN };
    if data + tcp_at + USUAL_SYN_LEN > end {
        return None;
    }
    let (ip, tcp) = (data + ETHERNET_LEN, data + tcp_at);
    let first = u32::from_be(load_word!("u32", tcp, TCP_LEN) as u32);
    if first >> 16 != 0x0204 {
        return None;
    }
    let options = [
        first,
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 4) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 8) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 12) as u32),
        u32::from_be(load_word!("u32", tcp, TCP_LEN + 16) as u32),
        0,
    ];
    let offer = Offer::read(options, USUAL_SYN_LEN - TCP_LEN);
    // The helper reads no option but the MSS: the header is to end behind it (its length in words is the upper half of
    // the byte). It is written anew anyway.
    store!("u8", tcp, 12, (MSS_ONLY_LEN << 2) as u8);
    // SAFETY: both headers lie in the frame.
    let cookie = unsafe {
        let (ip, tcp) = (ip as *mut u8, tcp as *mut u8);
        if is_v6 {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), tcp.cast(), MSS_ONLY_LEN)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp.cast(), MSS_ONLY_LEN)
        }
    };
    if cookie < 0 {
        return Some(NOT_ANSWERED);
    }
    let ports = u32::from_be(load_word!("u32", tcp, 0) as u32);
    let sequence = u32::from_be(load_word!("u32", tcp, 4) as u32);
    let syn_ack = syn_ack(settings, &offer, is_v6, ports, sequence, cookie as u32);
    let with_options = takes_options(settings, &offer);
    let answered = write_in_place(ctx, is_v6, tcp_at, &syn_ack, &offer, with_options);
    Some(if answered.is_some() {
        ANSWERED
    } else {
        NOT_ANSWERED
    })
}

/// Writes the answer over an ordinary packet, the frame as long as it takes; `None`: there is no room for it.
#[inline(always)]
fn write_in_place(
    ctx: &XdpContext,
    is_v6: bool,
    tcp_at: usize,
    syn_ack: &SynAck,
    offer: &Offer,
    with_options: bool,
) -> Option<()> {
    let tcp_words = SynAck::words(USUAL_SYN_LEN / 4, with_options);
    let frame_len = (tcp_at + tcp_words * 4).max(SHORTEST_FRAME);
    let now_len = opaque(ctx.data_end() - ctx.data());
    // SAFETY: the context is the kernel's; no packet pointer from before is used after.
    if frame_len != now_len && unsafe { bpf_xdp_adjust_tail(ctx.ctx, frame_len as i32 - now_len as i32) } != 0
    {
        return None;
    }
    let (at, end) = (ctx.data(), ctx.data_end());
    let (ip, tcp) = (at + ETHERNET_LEN, at + tcp_at);
    if tcp + SYN_ACK_WORDS * 4 > end {
        return None;
    }
    let (a, b) = (load_word!("u32", at, 0), load_word!("u16", at, 4));
    let (c, d) = (load_word!("u32", at, 6), load_word!("u16", at, 10));
    store!("u32", at, 0, c);
    store!("u16", at, 4, d);
    store!("u32", at, 6, a);
    store!("u16", at, 10, b);
    let mut words = [0; SYN_ACK_WORDS];
    if is_v6 {
        let client = [
            load_word!("u32", ip, 8) as u32,
            load_word!("u32", ip, 12) as u32,
            load_word!("u32", ip, 16) as u32,
            load_word!("u32", ip, 20) as u32,
        ];
        let service = [
            load_word!("u32", ip, 24) as u32,
            load_word!("u32", ip, 28) as u32,
            load_word!("u32", ip, 32) as u32,
            load_word!("u32", ip, 36) as u32,
        ];
        let sum = |sum, word: u32| sum + u64::from(u32::from_be(word));
        let addresses = client.into_iter().chain(service).fold(0, sum);
        syn_ack.write(&mut words, tcp_words, offer, with_options, addresses);
        let [a, b, c, d, e, f, g, h, i, j] = header6(client, service, tcp_words);
        store!("u32", ip, 0, a);
        store!("u32", ip, 4, b);
        store!("u32", ip, 8, c);
        store!("u32", ip, 12, d);
        store!("u32", ip, 16, e);
        store!("u32", ip, 20, f);
        store!("u32", ip, 24, g);
        store!("u32", ip, 28, h);
        store!("u32", ip, 32, i);
        store!("u32", ip, 36, j);
    } else {
        let (client, service) = (load_word!("u32", ip, 12) as u32, load_word!("u32", ip, 16) as u32);
        let addresses = u64::from(u32::from_be(client)) + u64::from(u32::from_be(service));
        syn_ack.write(&mut words, tcp_words, offer, with_options, addresses);
        let [a, b, c, d, e] = header4(client, service, tcp_words);
        store!("u32", ip, 0, a);
        store!("u32", ip, 4, b);
        store!("u32", ip, 8, c);
        store!("u32", ip, 12, d);
        store!("u32", ip, 16, e);
    }
    let [a, b, c, d, e, f, g, h, i, j] = words;
    store!("u32", tcp, 0, a);
    store!("u32", tcp, 4, b);
    store!("u32", tcp, 8, c);
    store!("u32", tcp, 12, d);
    store!("u32", tcp, 16, e);
    store!("u32", tcp, 20, f);
    store!("u32", tcp, 24, g);
    store!("u32", tcp, 28, h);
    store!("u32", tcp, 32, i);
    store!("u32", tcp, 36, j);
    Some(())
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
    let syn_ack = syn_ack(settings, &offer, is_v6, ports, sequence, cookie);
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
    send(ctx, scratch, place & 0xff, header_len, len)
}

/// Whether the answer has more options than the MSS.
#[inline(always)]
fn takes_options(settings: &Settings, offer: &Offer) -> bool {
    offer.has_timestamp != 0 && settings.has_timestamps != 0
}

/// The answer's TCP header. `ports` and `sequence` are the SYN's.
#[inline(always)]
fn syn_ack(
    settings: &Settings,
    offer: &Offer,
    is_v6: bool,
    ports: u32,
    sequence: u32,
    cookie: u32,
) -> SynAck {
    SynAck {
        ports: ports.rotate_left(16),
        cookie,
        sequence,
        mss: if is_v6 { settings.mss6 } else { settings.mss4 },
        window: if is_v6 { settings.window6 } else { settings.window4 },
        window_scale: u32::from(settings.window_scale),
        timestamp: offer.encode(clock::last_ms() as u32),
    }
}

/// The answer's IPv4 header, as it stands in memory, before a TCP header of so many words.
#[inline(always)]
fn header4(client: u32, service: u32, tcp_words: usize) -> [u32; IPV4_WORDS] {
    let first = 0x4500 << 16 | ((IPV4_WORDS + tcp_words) * 4) as u32;
    let fragments = 0x4000_u32;
    let third = TTL << 24 | u32::from(TCP) << 16;
    let addresses = u64::from(u32::from_be(client)) + u64::from(u32::from_be(service));
    let sum = u64::from(first) + u64::from(fragments) + u64::from(third) + addresses;
    [
        first.to_be(),
        fragments.to_be(),
        (third | u32::from(checksum::of(sum))).to_be(),
        service,
        client,
    ]
}

/// Likewise its IPv6 header.
#[inline(always)]
fn header6(client: [u32; 4], service: [u32; 4], tcp_words: usize) -> [u32; IPV6_WORDS] {
    let [a, b, c, d] = service;
    let [e, f, g, h] = client;
    let second = (tcp_words as u32 * 4) << 16 | u32::from(TCP) << 8 | TTL;
    [(6_u32 << 28).to_be(), second.to_be(), a, b, c, d, e, f, g, h]
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
    // SAFETY: the element is this CPU's alone; both headers in it are whole.
    let is_cookie = unsafe {
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
    if is_cookie == 0 {
        return COOKIE;
    }
    // SAFETY: as above.
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
