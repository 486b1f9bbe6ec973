//! Counting. A counter belongs to one CPU, and programs do not interrupt each other on it, so plain additions do.

use aya_ebpf::maps::PerCpuArray;
use edge_common::counter::Drops;

use crate::maps;
use crate::opaque::opaque;

/// Counts a packet that passed, by the index of the reason.
#[inline(always)]
pub(crate) fn pass(reason: u32) {
    update(&maps::PASSES, reason, |count| *count += 1);
}

/// Counts a packet that was delivered, for its VIP and its worker.
#[inline(always)]
pub(crate) fn deliver(vip: u32, worker: u32, bytes: u64, opens_connection: bool) {
    let opened = u64::from(opens_connection);
    update(&maps::VIP_COUNTERS, vip, |vip| {
        vip.packets += 1;
        vip.bytes += bytes;
        vip.new_connections += opened;
    });
    update(&maps::WORKER_COUNTERS, worker, |worker| {
        worker.packets += 1;
        worker.bytes += bytes;
        worker.new_connections += opened;
    });
}

/// Counts a packet that was answered, by the index of the reason.
#[inline(always)]
pub(crate) fn reply(reason: u32) {
    update(&maps::REPLIES, reason, |count| *count += 1);
}

/// Counts a SYN that was left to the kernel though cookies are in use, by the index of the reason.
#[inline(always)]
pub(crate) fn left_to_kernel(reason: u32) {
    update(&maps::LEFT_TO_KERNEL, reason, |count| *count += 1);
}

/// Counts how the worker of a forwarded packet was found, by the index of the reason.
#[inline(always)]
pub(crate) fn flow(reason: u32) {
    update(&maps::FLOWS, reason, |count| *count += 1);
}

/// Counts a flow that gave its place in the connection table to another, by the index of what it was.
#[inline(always)]
pub(crate) fn evicted(eviction: u32) {
    update(&maps::EVICTIONS, eviction, |count| *count += 1);
}

/// Counts a packet that was dropped, by the indexes of reason and VIP, as a trace has them.
#[inline(always)]
pub(crate) fn drop(reason: u32, vip: u32) {
    let index = opaque(reason as usize) & (Drops::REASONS - 1);
    // No VIP is the greatest number, whose next is 0: the element for it.
    update(&maps::DROPS, vip.wrapping_add(1), |drops| {
        if let Some(count) = drops.by_reason.get_mut(index) {
            *count += 1;
        }
    });
}

/// Counts a flow that got a socket: of its own worker, or of another.
#[inline(always)]
pub(crate) fn steered(worker: u32, own: bool) {
    update(&maps::STEER_COUNTERS, worker, |steer| {
        if own {
            steer.steered += 1;
        } else {
            steer.moved += 1;
        }
    });
}

/// Counts a flow that got none.
#[inline(always)]
pub(crate) fn no_socket(worker: u32) {
    update(&maps::STEER_COUNTERS, worker, |steer| steer.no_socket += 1);
}

/// Changes this CPU's element of a map.
#[inline(always)]
pub(crate) fn update<T>(map: &PerCpuArray<T>, index: u32, change: impl FnOnce(&mut T)) {
    if let Some(value) = map.get_ptr_mut(index) {
        // SAFETY: the element is this CPU's alone, and nothing interrupts the program to run another that
        // changes it.
        change(unsafe { &mut *value });
    }
}
