//! The lab's packet generator: an XDP program that is run on live frames (BPF_PROG_TEST_RUN), overwrites each
//! with the next of its sequence and sends it out of an interface.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the program macros make public items of their own"
)]

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_REDIRECT};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use edge_common::pktgen::{self, FRAME_LEN, Progress, Settings};

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static PROGRESS: PerCpuArray<Progress> = PerCpuArray::with_max_entries(1, 0);

/// Makes and sends one frame.
#[xdp]
pub fn edge_pktgen(ctx: XdpContext) -> u32 {
    send(&ctx).unwrap_or(XDP_ABORTED)
}

#[inline(always)]
fn send(ctx: &XdpContext) -> Option<u32> {
    let settings = SETTINGS.get(0)?;
    let progress = PROGRESS.get_ptr_mut(0)?;
    if ctx.data() + FRAME_LEN > ctx.data_end() {
        return None;
    }
    // SAFETY: the element is this CPU's alone.
    let sequence = unsafe { (*progress).frames };
    let frame = ctx.data() as *mut [u8; FRAME_LEN];
    // SAFETY: the frame has room for it, by the comparison above, and an array of bytes has no alignment to keep.
    unsafe { frame.write(pktgen::frame(settings, sequence)) };
    // SAFETY: as above; the helper only notes the interface.
    let action = unsafe {
        (*progress).frames = sequence + 1;
        bpf_redirect(settings.interface, 0)
    };
    if action == i64::from(XDP_REDIRECT) {
        Some(XDP_REDIRECT)
    } else {
        None
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could come here.
    loop {}
}
