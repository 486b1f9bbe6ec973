//! Keeps messages about a lasting fault from becoming a flood of their own.

use crate::{clock, counters, maps};

/// Time between two messages of a kind on one CPU: an operator wants to see it, not each packet of it.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Kinds of messages: indexes of the map `LOGGED_AT`.
pub(crate) const KINDS: u32 = 2;

/// Whether it is time to say again that a VIP has no worker.
#[inline(always)]
pub(crate) fn no_worker() -> bool {
    is_due(0)
}

/// Whether it is time to say again that a worker has no socket.
#[inline(always)]
pub(crate) fn no_socket() -> bool {
    is_due(1)
}

#[inline(always)]
fn is_due(kind: u32) -> bool {
    let now = clock::now();
    let mut due = false;
    counters::update(&maps::LOGGED_AT, kind, |last| {
        due = now.wrapping_sub(*last) >= INTERVAL_NS;
        if due {
            *last = now;
        }
    });
    due
}
