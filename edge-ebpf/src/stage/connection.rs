//! The connection table in map memory; what it does and why is in `edge_common::connection`, and how in `shared` there.

use core::arch::asm;

use edge_common::Config;
use edge_common::connection::shared::{self, Place};
use edge_common::connection::{Bucket4, Bucket6, Evidence, Key, State, Way4, Way6, ticks};
use edge_common::verdict::Eviction;

use crate::{clock, counters, maps};

/// Where a flow's bucket is. Pointers into map values, good for the program's life.
#[derive(Clone, Copy)]
pub(crate) enum Bucket {
    /// Of an IPv4 client.
    V4(*mut Bucket4),
    /// Of an IPv6 client.
    V6(*mut Bucket6),
}

/// The table's time.
#[inline(always)]
pub(crate) fn now() -> u32 {
    ticks(clock::tick())
}

/// A place in a map value, aligned to eight bytes.
#[derive(Clone, Copy)]
pub(crate) struct MapValue(*mut u64);

impl Place for MapValue {
    #[inline(always)]
    fn at(self, offset: usize) -> Self {
        // SAFETY: `edge_common` asks for places in the bucket alone, which is a map value, and the verifier checks it.
        Self(unsafe { self.0.byte_add(offset) })
    }

    #[inline(always)]
    fn read(self) -> u64 {
        // SAFETY: the word lies in a map value, aligned. It is read at once, and anew at each call, because other CPUs
        // write it.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn write(self, word: u64) {
        // SAFETY: as above; it is written at once, and in the order of the calls.
        unsafe { self.0.write_volatile(word) };
    }

    #[inline(always)]
    fn write_half(self, half: u32) {
        // SAFETY: as above.
        unsafe { self.0.cast::<u32>().write_volatile(half) };
    }

    #[inline(always)]
    fn exchange(self, old: u64, new: u64) -> bool {
        let found: u64;
        // SAFETY: as above.
        unsafe {
            asm!(
                "r0 = cmpxchg_64({word} + 0, r0, {new})",
                word = in(reg) self.0,
                new = in(reg) new,
                inout("r0") old => found,
                options(nostack),
            );
        }
        found == old
    }
}

/// The bucket of a flow's hash.
#[inline(always)]
pub(crate) fn bucket(config: &Config, hash: u64, is_v4: bool) -> Option<Bucket> {
    if is_v4 {
        maps::CONNECTIONS4
            .get_ptr_mut(hash as u32 & config.connections4_mask)
            .map(Bucket::V4)
    } else {
        maps::CONNECTIONS6
            .get_ptr_mut(hash as u32 & config.connections6_mask)
            .map(Bucket::V6)
    }
}

/// Asks memory for a bucket that will be looked at in a moment.
///
/// It is a write, of a byte that is 0 as ever. BPF has no prefetch. A load is none: until its line is there, no later
/// instruction can retire, and the core holds some hundreds of them. A write waits in the store buffer, behind which the
/// packet's other work goes on. Its price is that the line becomes this CPU's own: a bucket whose flows come by several CPUs
/// goes back and forth between them.
#[inline(always)]
pub(crate) fn prefetch(bucket: Bucket) {
    match bucket {
        // SAFETY: the bucket is a map value.
        Bucket::V4(bucket) => unsafe { bucket.cast::<u8>().add(Bucket4::PREFETCH).write_volatile(0) },
        // SAFETY: as above.
        Bucket::V6(bucket) => unsafe {
            let [first, second] = Bucket6::PREFETCH;
            bucket.cast::<u8>().add(first).write_volatile(0);
            bucket.cast::<u8>().add(second).write_volatile(0);
        },
    }
}

/// A flow that was found.
pub(crate) type Found = shared::Found<MapValue>;

/// Looks a flow up.
#[inline(always)]
pub(crate) fn find(bucket: Bucket, key: &Key) -> Option<Found> {
    match bucket {
        Bucket::V4(bucket) => shared::find::<Way4, _>(MapValue(bucket.cast()), key),
        Bucket::V6(bucket) => shared::find::<Way6, _>(MapValue(bucket.cast()), key),
    }
}

/// Records a flow. False if no way gives its place away.
#[inline(always)]
pub(crate) fn record(
    bucket: Bucket,
    key: &Key,
    state: State,
    now: u32,
    idle: u32,
    evidence: Evidence,
) -> bool {
    let evicted = |eviction: Eviction| counters::evicted(eviction.index());
    match bucket {
        Bucket::V4(bucket) => {
            let ways = MapValue(bucket.cast());
            shared::record::<Way4, _>(ways, key, state, now, idle, evidence, evicted)
        }
        Bucket::V6(bucket) => {
            let ways = MapValue(bucket.cast());
            shared::record::<Way6, _>(ways, key, state, now, idle, evidence, evicted)
        }
    }
}
