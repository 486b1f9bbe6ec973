//! Tier 1 in the kernel: the XDP program that judges every packet, and the `sk_lookup` program that finds the
//! chosen worker's socket.
//!
//! `pipeline` reads as the packet's diary and ends in a [`Verdict`]; the one match in this file turns a verdict
//! into action, counters and trace.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros make public items of their own"
)]
// BPF's atomic addition has no intrinsic in Rust, and optimised pointers must be kept as they were checked.
#![feature(asm_experimental_arch)]

mod clock;
mod counters;
mod events;
mod log_limit;
mod maps;
mod opaque;
mod packet;
mod pipeline;
mod stage;
mod steer;

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::{sk_lookup, xdp};
use aya_ebpf::programs::{SkLookupContext, XdpContext};
use edge_common::verdict::Trace;
use edge_common::{DropReason, Verdict};

use crate::packet::Frame;

/// Other than 0: write every verdict to the map `TRACE`. Set at load time; the verifier knows the value and
/// removes the code where it is 0.
#[unsafe(no_mangle)]
static EXPLAIN: Global<u8> = Global::new(0);

/// The kernel lends its SYN cookie helpers to programs under the GPL alone; the crates of this object may be had under
/// it, beside the project's licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Judges a frame that an interface received.
#[xdp]
pub fn edge_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame::new(&ctx);
    let bytes = frame.len();
    let verdict = pipeline::judge(&ctx, frame);
    if EXPLAIN.load() != 0 {
        // An array of one element always has element 0.
        let _ = maps::TRACE.set(0, Trace::from(verdict), 0);
    }
    settle(&ctx, verdict, bytes)
}

/// Picks the socket for a packet that no established connection claims.
#[sk_lookup]
pub fn edge_steer(ctx: SkLookupContext) -> u32 {
    steer::steer(&ctx)
}

/// Turns a verdict into action and counters.
#[inline(always)]
fn settle(ctx: &XdpContext, verdict: Verdict, bytes: u64) -> u32 {
    match verdict {
        Verdict::Pass(reason) => {
            counters::pass(reason);
            XDP_PASS
        }
        Verdict::Deliver {
            vip,
            worker,
            opens_connection,
        } => {
            counters::deliver(vip, worker, bytes, opens_connection);
            XDP_PASS
        }
        Verdict::Forward {
            vip,
            worker,
            opens_connection,
            ..
        } => {
            counters::deliver(vip, worker, bytes, opens_connection);
            XDP_TX
        }
        Verdict::Reply { reason, .. } => {
            counters::reply(reason);
            XDP_TX
        }
        Verdict::Drop { reason, vip } => {
            counters::drop(reason, vip);
            events::dropped(ctx, reason, vip, bytes);
            if reason == DropReason::NoWorker && log_limit::no_worker() {
                aya_log_ebpf::warn!(
                    ctx,
                    "packet dropped: VIP {} has no worker",
                    vip.unwrap_or(Trace::NONE)
                );
            }
            XDP_DROP
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could come here.
    loop {}
}
