//! Counting. A counter belongs to one CPU, and programs do not interrupt each other on it, so plain additions do.

use aya_ebpf::maps::PerCpuArray;
use edge_common::counter::Drops;
use edge_common::verdict::ReplyReason;
use edge_common::{DropReason, PassReason};

use crate::maps;

/// Counts a packet that passed.
#[inline(always)]
pub(crate) fn pass(reason: PassReason) {
    update(&maps::PASSES, reason.index(), |count| *count += 1);
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

/// Counts a packet that was answered.
#[inline(always)]
pub(crate) fn reply(reason: ReplyReason) {
    update(&maps::REPLIES, reason.index(), |count| *count += 1);
}

/// Counts a packet that was dropped, by reason and VIP.
#[inline(always)]
pub(crate) fn drop(reason: DropReason, vip: Option<u32>) {
    update(&maps::DROPS, Drops::index(vip), |drops| {
        if let Some(count) = drops.by_reason.get_mut(reason.index() as usize) {
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
