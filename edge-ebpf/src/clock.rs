//! Time.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// CLOCK_MONOTONIC_COARSE, in nanoseconds: as of the last timer tick. It costs half of the exact clock, and the
/// limits here are not finer than a tick.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no arguments and always succeeds.
    unsafe { bpf_ktime_get_coarse_ns() }
}
