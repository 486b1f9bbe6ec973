//! Samples of dropped packets for userspace.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_xdp_load_bytes;
use aya_ebpf::programs::XdpContext;
use edge_common::event::{Event, HEAD_LEN};

use crate::opaque::opaque;
use crate::{clock, counters, maps};

/// Whether an event of a dropped packet is to be written: no other of its reason was by this CPU since the last timer tick.
///
/// That is 100 to 1000 a second of each reason, enough to see what arrives, and a flood costs one comparison for each
/// packet; a flood of one kind does not hide a single packet of another.
#[inline(always)]
pub(crate) fn is_due(reason: u32) -> bool {
    let tick = clock::tick();
    let mut is_first = false;
    counters::update(&maps::SAMPLED_AT, reason, |sampled_at| {
        is_first = *sampled_at != tick;
        *sampled_at = tick;
    });
    is_first
}

/// Userspace looks for events by itself, a few times a second: to be woken up would cost the packet more than the event.
const NO_WAKEUP: u64 = BPF_RB_NO_WAKEUP as u64;

/// Writes the event; a full ring buffer takes none.
#[inline(always)]
pub(crate) fn write(ctx: &XdpContext, reason: u32, vip: u32, frame_len: u64) {
    let Some(mut event) = maps::EVENTS.reserve::<Event>(0) else {
        return;
    };
    // The verifier wants to see both bounds, so the compiler must not find the lower one needless.
    let head_len = opaque(frame_len as usize).clamp(1, HEAD_LEN);
    let to = event.as_mut_ptr();
    // SAFETY: the entry is a whole event in the ring buffer and this program's alone until it is submitted. The
    // helper writes at most the length of `head`.
    unsafe {
        (*to).time_ns = clock::now();
        (*to).reason = reason;
        (*to).vip = vip;
        (*to).interface = ctx.ingress_ifindex() as u32;
        (*to).frame_len = frame_len as u32;
        (*to).head_len = head_len as u32;
        (*to).padding = 0;
        let head = (&raw mut (*to).head).cast();
        if bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, head, head_len as u32) != 0 {
            event.discard(NO_WAKEUP);
            return;
        }
    }
    event.submit(NO_WAKEUP);
}
