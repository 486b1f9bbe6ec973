//! A value whose origin the compiler must forget.

use core::arch::asm;

/// Gives the value back; the compiler can neither compute with where it came from nor put it together anew.
#[inline(always)]
pub(crate) fn opaque(mut value: usize) -> usize {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value, options(pure, nomem, nostack)) };
    value
}
