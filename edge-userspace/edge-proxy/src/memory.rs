//! Memory of this process.

use std::fs;

/// Resident memory in bytes, by /proc/self/statm (proc_pid_statm(5)); `None` where /proc is not there.
pub(crate) fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(pages * page)
}

/// Gives memory that was freed back to the system, as far as the allocator has kept it.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a call into the C library")]
    // SAFETY: malloc_trim(3) takes a number and no pointer, locks the heap itself, and leaves allocated memory alone.
    unsafe {
        libc::malloc_trim(0);
    }
}
