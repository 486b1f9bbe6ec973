//! The benchmark's harness, and the floors that its figures are compared with.
//!
//! BPF_PROG_TEST_RUN repeats a program on one packet and does not put it back: a program that encapsulates would
//! meet its own outer header the second time. So the harness is what is run; it restores the frame, makes it the
//! next flow's and calls the program under test as its tail.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros make public items of their own"
)]
#![feature(asm_experimental_arch)]

mod opaque;
#[allow(dead_code, reason = "the floors read less of a packet than tier 1 does")]
mod packet;
mod word;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::{
    bpf_tcp_raw_gen_syncookie_ipv4, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use edge_common::bench::{HEAD_WORDS, Settings, State};
use edge_common::cursor::{Cursor as _, Window as _};
use edge_common::{TCP, UDP};

use crate::opaque::opaque;
use crate::packet::Frame;
use crate::word::store;

/// The kernel lends the helper that makes cookies to programs under the GPL alone.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static STATE: Array<State> = Array::with_max_entries(1, 0);
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Words of the head of the shortest frame.
const SHORT_HEAD: usize = 8;

/// Makes the next packet and runs the program under test on it.
#[xdp]
pub fn edge_bench(ctx: XdpContext) -> u32 {
    if prepare(&ctx).is_some() {
        // SAFETY: nothing here waits to be dropped.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// Drops at once.
#[xdp]
pub fn bench_drop(_: XdpContext) -> u32 {
    XDP_DROP
}

/// Reads addresses, protocol and ports, and drops.
#[xdp]
pub fn bench_parse(ctx: XdpContext) -> u32 {
    if parse(Frame::new(&ctx)) == 0 {
        XDP_PASS
    } else {
        XDP_DROP
    }
}

/// Reads the same, has the kernel make a SYN cookie, and drops.
#[xdp]
pub fn bench_cookie(ctx: XdpContext) -> u32 {
    if parse(Frame::new(&ctx)) == 0 {
        return XDP_PASS;
    }
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + SYN_AT + SYN_LEN as usize > end {
        return XDP_PASS;
    }
    let (ip, tcp) = (data + IP_AT, data + SYN_AT);
    // As tier 1 does: the helper is to look at the first option alone.
    store!("u8", tcp, 12, (SYN_LEN << 2) as u8);
    // SAFETY: both headers lie in the frame.
    let cookie = unsafe {
        let (ip, tcp) = (ip as *mut u8, tcp as *mut u8);
        bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), tcp.cast(), SYN_LEN)
    };
    if cookie < 0 { XDP_PASS } else { XDP_DROP }
}

/// Where an IPv4 header begins, and the TCP header behind it; the length of one whose only option is the MSS.
const IP_AT: usize = 14;
const SYN_AT: usize = IP_AT + 20;
const SYN_LEN: u32 = 24;

#[inline(always)]
fn prepare(ctx: &XdpContext) -> Option<()> {
    let settings = SETTINGS.get(0)?;
    let state = STATE.get_ptr_mut(0)?;
    restore_size(ctx, settings, state)?;
    // SAFETY: one CPU runs the harness, and the map's element is always there.
    let sequence = unsafe {
        let sequence = (*state).sequence;
        (*state).sequence = sequence + 1;
        sequence
    };
    write_head(ctx, settings, sequence)
}

/// Moves the frame's ends back to where they were.
#[inline(always)]
fn restore_size(ctx: &XdpContext, settings: &Settings, state: *mut State) -> Option<()> {
    // SAFETY: the map's element is always there. A packet pointer that was stored in it comes back as a number,
    // which the verifier lets us calculate with.
    let moved = unsafe {
        (&raw mut (*state).now).write_volatile(ctx.data() as u64);
        let now = (&raw const (*state).now).read_volatile();
        if (*state).home == 0 {
            (*state).home = now;
        }
        (*state).home.wrapping_sub(now) as i32
    };
    // SAFETY: the context is the kernel's; no packet pointer from before is used after.
    if moved != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, moved) } != 0 {
        return None;
    }
    // The compiler would add the lengths to a pointer first, which the verifier does not let it compare as a number.
    let grown = opaque(ctx.data_end() - ctx.data()) as i32 - settings.len as i32;
    // SAFETY: as above.
    if grown != 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, -grown) } != 0 {
        return None;
    }
    Some(())
}

/// Writes the head of a flow's packet.
#[inline(always)]
fn write_head(ctx: &XdpContext, settings: &Settings, sequence: u64) -> Option<()> {
    let (at, end) = (ctx.data(), ctx.data_end());
    if at + SHORT_HEAD * 8 > end {
        return None;
    }
    let flow = settings.variation(sequence);
    let [a, b, c, d, e, f, g, h, i, j, k, l] = settings.head;
    store!("u64", at, 0, a);
    store!("u64", at, 8, b);
    store!("u64", at, 16, c);
    store!("u64", at, 24, d);
    store!("u64", at, 32, e);
    store!("u64", at, 40, f);
    store!("u64", at, 48, g);
    store!("u64", at, 56, h);
    if at + HEAD_WORDS * 8 <= end {
        store!("u64", at, 64, i);
        store!("u64", at, 72, j);
        store!("u64", at, 80, k);
        store!("u64", at, 88, l);
    }
    let (source, destination) = (flow.source.to_be(), flow.destination.to_be());
    let port = flow.source_port.to_be();
    if settings.is_v6 != 0 {
        store!("u32", at, 34, source);
        store!("u32", at, 50, destination);
        store!("u16", at, 54, port);
    } else {
        store!("u16", at, 18, flow.identification().to_be());
        store!("u32", at, 26, source);
        store!("u32", at, 30, destination);
        store!("u16", at, 34, port);
    }
    Some(())
}

/// Addresses, protocol and ports in one number, so that each must be read; 0 for what is neither TCP nor UDP. (An
/// `Option` would be packed into a register that the verifier has seen a pointer in.)
#[inline(always)]
fn parse(mut frame: Frame<'_>) -> u64 {
    let Some(ethernet) = frame.take::<14>() else {
        return 0;
    };
    match ethernet.be16::<12>() {
        0x0800 => ipv4(frame),
        0x86dd => ipv6(frame),
        _ => 0,
    }
}

#[inline(always)]
fn ipv4(mut frame: Frame<'_>) -> u64 {
    let Some(ip) = frame.take::<20>() else { return 0 };
    let protocol = ip.byte::<9>();
    let is_plain = ip.byte::<0>() == 0x45 && ip.be16::<6>() & 0x3fff == 0;
    if !is_plain || (protocol != TCP && protocol != UDP) {
        return 0;
    }
    let Some(ports) = frame.take::<8>() else { return 0 };
    let addresses = ip.word::<12>() ^ ip.word::<16>();
    u64::from(addresses ^ ports.word::<0>()) << 8 | u64::from(protocol)
}

#[inline(always)]
fn ipv6(mut frame: Frame<'_>) -> u64 {
    let Some(ip) = frame.take::<40>() else { return 0 };
    let protocol = ip.byte::<6>();
    if protocol != TCP && protocol != UDP {
        return 0;
    }
    let Some(ports) = frame.take::<8>() else { return 0 };
    let source = ip.word::<8>() ^ ip.word::<12>() ^ ip.word::<16>() ^ ip.word::<20>();
    let destination = ip.word::<24>() ^ ip.word::<28>() ^ ip.word::<32>() ^ ip.word::<36>();
    u64::from(source ^ destination ^ ports.word::<0>()) << 8 | u64::from(protocol)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could come here.
    loop {}
}
