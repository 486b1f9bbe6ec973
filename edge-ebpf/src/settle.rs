//! The end of every packet: a verdict becomes an XDP action, counters and a trace.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use edge_common::DropReason;
use edge_common::verdict::{ReplyReason, Trace};

use crate::stage::forward;
use crate::{EXPLAIN, counters, events, log_limit, maps, state};

/// Turns a verdict, given as its trace, into action and counters. A trace is whole: an enum's fields that a variant does
/// not have are nothing, and the verifier refuses to copy it.
#[inline(always)]
pub(crate) fn settle(ctx: &XdpContext, verdict: Trace, bytes: u64) -> u32 {
    let Trace {
        kind,
        reason,
        vip,
        worker,
        ..
    } = verdict;
    if matches!(kind, Trace::DELIVER | Trace::REPLY) {
        trace(&verdict);
    }
    match kind {
        Trace::PASS => passed(&verdict),
        Trace::DELIVER => {
            counters::deliver(vip, worker, bytes, reason != 0);
            XDP_PASS
        }
        Trace::FORWARD => {
            forwarded(&verdict, bytes);
            forward::send()
        }
        Trace::REPLY => {
            counters::reply(reason);
            if reason == ReplyReason::RoutedSynCookie.index() {
                forward::send()
            } else {
                XDP_TX
            }
        }
        _ => dropped(ctx.ctx, reason, vip, bytes as u32),
    }
}

/// Counts a packet that goes to a worker elsewhere.
#[inline(always)]
pub(crate) fn forwarded(verdict: &Trace, bytes: u64) {
    trace(verdict);
    counters::deliver(verdict.vip, verdict.worker, bytes, verdict.reason != 0);
    counters::flow(verdict.flow);
}

/// Counts a packet that goes up the stack as if tier 1 were not there.
#[inline(always)]
pub(crate) fn passed(verdict: &Trace) -> u32 {
    trace(verdict);
    counters::pass(verdict.reason);
    XDP_PASS
}

/// Settles the verdict that a function of the pipeline wrote down.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn finish(ctx: *mut xdp_md) -> u32 {
    let Some(packet) = state::packet() else {
        return XDP_PASS;
    };
    // SAFETY: the element is this CPU's alone, and both were written.
    let (verdict, bytes) = unsafe { ((*packet).verdict, (*packet).frame_len) };
    settle(&XdpContext::new(ctx), verdict, u64::from(bytes))
}

/// Writes a verdict down, if the program was loaded to explain.
#[inline(always)]
fn trace(trace: &Trace) {
    if EXPLAIN.load() != 0 {
        // An array of one element always has element 0.
        let _ = maps::TRACE.set(0, trace, 0);
    }
}

/// Counts a packet that is dropped, and samples it if it is time.
///
/// What is seldom is a function of its own. What is not is inlined: on processors whose returns are guarded against
/// speculation (AMD's Safe RET, see `spec_rstack_overflow` in the kernel's documentation) a call costs as much as a look-up.
#[inline(always)]
pub(crate) fn dropped(ctx: *mut xdp_md, reason: u32, vip: u32, bytes: u32) -> u32 {
    counters::drop(reason, vip);
    let sampled = if events::is_due(reason) { SAMPLED } else { 0 };
    if sampled != 0 || EXPLAIN.load() != 0 || reason == DropReason::NoWorker.index() {
        dropped_in_full(ctx, reason, vip, bytes | sampled);
    }
    XDP_DROP
}

/// Bit beside a frame's length: it is to be sampled.
const SAMPLED: u32 = 1 << 31;

/// Samples a packet that is dropped, and says so where it must be. `bytes` may have the bit [`SAMPLED`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dropped_in_full(ctx: *mut xdp_md, reason: u32, vip: u32, bytes: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    trace(&Trace {
        kind: Trace::DROP,
        reason,
        vip,
        worker: Trace::NONE,
        flow: Trace::NONE,
    });
    if bytes & SAMPLED != 0 {
        events::write(&ctx, reason, vip, u64::from(bytes & !SAMPLED));
    }
    if reason == DropReason::NoWorker.index() && log_limit::no_worker() {
        aya_log_ebpf::warn!(&ctx, "packet dropped: VIP {} has no worker", vip);
    }
    XDP_DROP
}
