//! Looking a source up in a set of prefixes.

use aya_ebpf::maps::{Array, HashMap};
use edge_common::maps::CELL_BITS;
use edge_common::prefix::{self, Prefix, place};
use edge_common::prefix_table::{Bucket, Found, bucket_of};
use edge_common::{Address, Config};

use crate::{clock, maps};

/// What the filter before all sets says of a source; 0: no set has a prefix that covers it.
#[inline(always)]
pub(crate) fn marks(config: &Config, source: Address) -> u64 {
    if !config.has(Config::HAS_SOURCES | Config::HAS_PENALTIES) {
        return 0;
    }
    let has_short = config.sources.has_short | config.penalties.has_short;
    u64::from(prefix::marks(source, has_short, |hash| {
        let (word, shift) = place(hash, CELL_BITS);
        (maps::CELLS.get(word).copied().unwrap_or_default() >> shift) as u16
    }))
}

/// The value of a prefix in a table of 2^`bits` buckets.
///
/// Userspace may write the bucket at the same moment: the packet then meets the set as it was, as it will be, or without
/// the prefixes of this bucket, as any packet during a change.
#[inline(always)]
pub(crate) fn find(
    table: &Array<Bucket>,
    rest: &HashMap<Prefix, u32>,
    bits: u32,
    prefix: &Prefix,
) -> Option<u32> {
    match table.get(bucket_of(prefix, bits))?.find(prefix) {
        Found::Value(value) => Some(value),
        // SAFETY: the number is copied out at once.
        Found::Elsewhere => unsafe { rest.get(prefix) }.copied(),
        Found::Nowhere => None,
    }
}

/// Whether a list or a penalty refused a packet on this CPU in this timer tick.
#[inline(always)]
pub(crate) fn refuse_now() -> bool {
    match maps::REFUSED_AT.get(0) {
        Some(tick) => *tick == clock::tick(),
        None => false,
    }
}

/// Notes that one did.
#[inline(always)]
pub(crate) fn note_refusal() {
    if let Some(tick) = maps::REFUSED_AT.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's alone.
        unsafe { *tick = clock::tick() };
    }
}
