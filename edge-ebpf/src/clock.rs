//! Time.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

use crate::maps;

/// The clock, and when it was read.
#[repr(C)]
pub(crate) struct Reading {
    /// Timer tick of the reading.
    tick: u64,
    /// CLOCK_MONOTONIC_COARSE then.
    now_ns: u64,
    /// The same in milliseconds: a division would cost more than the rest of the reading.
    now_ms: u64,
}

/// CLOCK_MONOTONIC_COARSE, in nanoseconds: as of the last timer tick, which no limit here is finer than.
///
/// The helper costs 18 ns, the number of the tick one load; so the clock is read once in a tick. A CPU that does it in
/// the moment between the kernel's counting of a tick and its setting of the clock is late by that tick until the next.
#[inline(always)]
pub(crate) fn now() -> u64 {
    clock_now()
}

/// [`now`], as a function of its own: no pointer is left in a register that the compiler takes for a number elsewhere.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn clock_now() -> u64 {
    inlined()
}

/// [`now`], for those that are functions of their own already.
#[inline(always)]
pub(crate) fn inlined() -> u64 {
    let tick = tick();
    let Some(reading) = maps::CLOCK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the element is this CPU's alone, and nothing interrupts the program to run another that changes it. The
    // helper has no arguments and always succeeds.
    unsafe {
        if (*reading).tick != tick {
            (*reading).tick = tick;
            (*reading).now_ns = bpf_ktime_get_coarse_ns();
            (*reading).now_ms = (*reading).now_ns / 1_000_000;
        }
        (*reading).now_ns
    }
}

/// The last reading of this CPU, in milliseconds. [`now`] was asked for the packet before.
#[inline(always)]
pub(crate) fn last_ms() -> u64 {
    match maps::CLOCK.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's alone.
        Some(reading) => unsafe { (*reading).now_ms },
        None => 0,
    }
}

/// Number of the last timer tick: 100 to 1000 come in a second, as the kernel was built (CONFIG_HZ).
#[inline(always)]
pub(crate) fn tick() -> u64 {
    // SAFETY: the helper has no arguments and always succeeds; it is compiled to one load.
    unsafe { bpf_jiffies64() }
}
