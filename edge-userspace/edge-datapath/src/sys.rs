//! The system calls that no library here has a safe call for.
#![allow(unsafe_code, reason = "each call is one line with its SAFETY note")]

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use edge_common::connection::TICK_SHIFT;

/// CLOCK_MONOTONIC in nanoseconds: the clock by which the data path ends penalties.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writing; the call fails only for an unknown clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A time in ticks of the connection table, whose length the kernel's timer decides.
pub(crate) fn ticks(time: Duration) -> u32 {
    u32::try_from(jiffies(time) >> TICK_SHIFT).unwrap_or(u32::MAX)
}

/// A time in ticks of the kernel's timer.
pub(crate) fn jiffies(time: Duration) -> u64 {
    let mut jiffy = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `jiffy` is valid for writing. The coarse clock's resolution is the timer's period.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut jiffy) };
    let jiffy = u128::try_from(jiffy.tv_nsec).unwrap_or_default().max(1);
    u64::try_from(time.as_nanos() / jiffy).unwrap_or(u64::MAX)
}

/// A socket's cookie: a number that the kernel gives to no other socket while it runs (SO_COOKIE).
///
/// # Errors
/// The descriptor is no socket.
pub(crate) fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; `cookie` has room for the `len` bytes that are written.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Replaces the program in a pinned link. A packet meets the one or the other.
///
/// aya has this for XDP alone.
///
/// # Errors
/// ENOLINK: what the link was attached to is gone.
pub(crate) fn update_link(pin: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    /// The members for BPF_LINK_UPDATE; the flags say that no old program is compared with.
    #[repr(C)]
    struct LinkUpdate {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let link = pinned(pin)?;
    let update = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: both descriptors are open, and all members that the command reads are there.
    unsafe { bpf(BPF_LINK_UPDATE, &update) }.map(drop)
}

/// Takes the program of a pinned link off its hook. When this returns, no packet meets it any more: a link whose last pin
/// or descriptor goes is let go by the kernel's worker, some time later.
///
/// # Errors
/// What is pinned there is no link, or none that can be detached.
pub(crate) fn detach_link(pin: &Path) -> io::Result<()> {
    /// The members for BPF_LINK_DETACH.
    #[repr(C)]
    struct LinkDetach {
        link_fd: u32,
    }
    let link = pinned(pin)?;
    let detach = LinkDetach {
        link_fd: link.as_raw_fd() as u32,
    };
    // SAFETY: the descriptor is open, and all members that the command reads are there.
    unsafe { bpf(BPF_LINK_DETACH, &detach) }.map(drop)
}

/// What is pinned in a file.
fn pinned(pin: &Path) -> io::Result<OwnedFd> {
    /// The members of `union bpf_attr` for BPF_OBJ_GET.
    #[repr(C)]
    struct ObjGet {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let get = ObjGet {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path lives until after the call, and all members that the command reads are there.
    let fd = unsafe { bpf(BPF_OBJ_GET, &get) }?;
    // SAFETY: the kernel has just given this process the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// Of `enum bpf_cmd`.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// bpf(2).
///
/// # Safety
/// The attributes must be what the command takes, and pointers in them good for it.
unsafe fn bpf<A>(command: libc::c_long, attributes: &A) -> io::Result<i32> {
    // SAFETY: the caller vouches for the attributes; the kernel reads no more bytes of them than it is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}
