//! Words of packet memory, each with one instruction.
//!
//! Header fields stand at odd offsets in a frame. The kernel reads and writes unaligned packet memory in one go on the
//! architectures that edge runs on (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS), but LLVM would build a word from single
//! bytes; and told to allow unaligned access it does so on the stack too, which the verifier refuses.

/// Reads a word (`"u8"`, `"u16"`, `"u32"`, `"u64"`) `offset` bytes behind `at`. The caller has compared the word's end
/// with the frame's.
macro_rules! load {
    ($size:literal, $at:expr, $offset:expr) => {{
        let value: u64;
        // SAFETY: the caller compared the word's end with the frame's.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(", $size, " *)({at} + {offset})"),
                value = lateout(reg) value,
                at = in(reg) $at,
                offset = const $offset,
                options(pure, readonly, nostack),
            );
        }
        value
    }};
}

/// Writes one likewise.
macro_rules! store {
    ($size:literal, $at:expr, $offset:expr, $value:expr) => {
        // SAFETY: the caller compared the word's end with the frame's.
        unsafe {
            core::arch::asm!(
                concat!("*(", $size, " *)({at} + {offset}) = {value}"),
                at = in(reg) $at,
                offset = const $offset,
                value = in(reg) u64::from($value),
                options(nostack),
            );
        }
    };
}

pub(crate) use {load, store};
