//! Tier 1 in the kernel: two XDP programs, one that judges ordinary packets the short way and one for all others, a third
//! that userspace asks for routes, and the `sk_lookup` program that finds the chosen worker's socket.
//!
//! `pipeline` reads as the packet's diary and ends in a verdict, as its `Trace`; the one match in `settle` turns it into
//! action and counters.

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
mod ordinary;
mod packet;
mod pipeline;
mod settle;
mod stage;
mod state;
mod steer;
mod word;

use crate::stage::{decap, route};
use aya_ebpf::Global;
use aya_ebpf::macros::{sk_lookup, xdp};
use aya_ebpf::programs::{SkLookupContext, XdpContext};

/// Other than 0: write every verdict to the map `TRACE`. Set at load time; the verifier knows the value and
/// removes the code where it is 0.
#[unsafe(no_mangle)]
static EXPLAIN: Global<u8> = Global::new(0);

/// The kernel lends its SYN cookie helpers to programs under the GPL alone; the crates of this object may be had under
/// it, beside the project's licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Judges a frame that an interface received, if it is an ordinary one; others go the general way.
#[xdp]
#[inline(always)]
pub fn edge_xdp(ctx: XdpContext) -> u32 {
    match ordinary::judge(&ctx) {
        Some(action) => action,
        None => ordinary::general(&ctx),
    }
}

/// Judges every other frame.
#[xdp]
pub fn edge_general(ctx: XdpContext) -> u32 {
    let skips_stages = state::skips_stages();
    // A packet that came by a tunnel is judged as if it had come without.
    if let Err(action) = decap::unpack(&ctx) {
        return action;
    }
    pipeline::judge(&ctx, skips_stages)
}

/// Says what the kernel's routes say of an address. It is attached nowhere.
#[xdp]
pub fn edge_route(ctx: XdpContext) -> u32 {
    route::answer(&ctx)
}

/// Picks the socket for a packet that no established connection claims.
#[sk_lookup]
pub fn edge_steer(ctx: SkLookupContext) -> u32 {
    steer::steer(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could come here.
    loop {}
}
