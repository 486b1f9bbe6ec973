//! Answers SYNs with cookies, and holds each VIP to its rate of new connections.
//!
//! The SYN-ACK leaves by the interface that the SYN came in by, or, if that came by a tunnel, by the node's own route to the
//! client; and nothing is remembered. The client's ACK goes up the stack, whose listener takes the cookie for one of its own:
//! both are made by the same secret.

mod by_route;
mod general;
mod in_place;
mod syn_ack;

use aya_ebpf::programs::XdpContext;
use edge_common::header::TCP_LEN;
use edge_common::malformed::tcp_flags::{ACK, RST, SYN};
use edge_common::parse::{Network, Transport};
use edge_common::syncookie::{Guard, Handshake};
use edge_common::verdict::ReplyReason;
use edge_common::{Config, DropReason, TCP, Verdict};

use self::by_route::answer_by_route;
use self::general::{ANSWERED, CONNECTION, COOKIE, place, syncookie_answer, syncookie_check};
pub(crate) use self::general::{Scratch, brings_cookie};
use self::in_place::{USUAL_SYN_LEN, answer_in_place};
use crate::{clock, maps};

/// What the stage says of a packet that may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is a packet as any.
    Ordinary,
    /// It brings a right cookie, and so opens a connection whose SYN nobody has seen.
    Opens,
}

/// Which way the answer to a packet takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// The one that the packet came by.
    Back,
    /// The node's own route to the client: the packet came by a tunnel for this node, and the way back leads to the balancer.
    ByRoute,
    /// None. The cookies are those of this node's stack, so they are of no use to workers elsewhere; and a listener takes them
    /// only if the kernel answers a SYN to it now and then, which nobody sees to where a VIP stands for many.
    Nowhere,
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
/// VIP's rate. A SYN that no way is known for to answer goes on to the kernel, which answers it with a cookie of its own.
#[inline(always)]
pub(crate) fn check(
    ctx: &XdpContext,
    config: &Config,
    segment: &Segment<'_>,
    vip: u32,
    answers: Answers,
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
    let may_bring_cookie = answers != Answers::Nowhere && transport.tcp_flags & (ACK | RST | SYN) == ACK;
    if !transport.opens_connection && !may_bring_cookie {
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
        if answers != Answers::Nowhere
            && uses_cookies_now(config, guard, network, transport, now)
            && !is_for_the_kernel(guard, now)
        {
            // A client's SYN has no IP options, and the answer has no place for them.
            if !network.is_plain() {
                return Err(dropped(DropReason::SynOptions));
            }
            let (answer, reason) = match answers {
                Answers::ByRoute => (answer_by_route(ctx, segment), ReplyReason::RoutedSynCookie),
                Answers::Back | Answers::Nowhere => {
                    (Some(answer(ctx, config, segment)), ReplyReason::SynCookie)
                }
            };
            match answer {
                Some(ANSWERED) => return Err(Verdict::Reply { reason, vip }),
                Some(_) => return Err(dropped(DropReason::NoSynCookie)),
                None => {}
            }
        }
        take(config, guard, now).map_err(dropped)?;
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
