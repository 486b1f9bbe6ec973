//! The connection table in map memory; what it does and why is in `edge_common::connection`.

use core::arch::asm;

use edge_common::Config;
use edge_common::connection::{Bucket4, Bucket6, Evidence, Key, State, WAYS, Way4, Way6, ticks, victim};

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

/// A way of the table: its key, and its state as one word.
trait Way {
    fn matches(way: *mut Self, key: &Key) -> bool;
    fn write(way: *mut Self, key: &Key);
    fn state(way: *mut Self) -> *mut State;
}

impl Way for Way4 {
    #[inline(always)]
    fn matches(way: *mut Self, key: &Key) -> bool {
        // SAFETY: the way lies in a map value. Both words are read at once, and anew at each call, because other CPUs
        // write them.
        let found = unsafe { way.cast::<u64>().read_volatile() };
        found == first_word(key)
    }

    #[inline(always)]
    fn write(way: *mut Self, key: &Key) {
        // SAFETY: as above.
        unsafe { way.cast::<u64>().write_volatile(first_word(key)) };
    }

    #[inline(always)]
    fn state(way: *mut Self) -> *mut State {
        // SAFETY: as above.
        unsafe { &raw mut (*way).state }
    }
}

/// Address and ports of an IPv4 client as they stand in a way.
#[inline(always)]
const fn first_word(key: &Key) -> u64 {
    let [.., source] = key.source.0;
    source as u64 | (key.ports as u64) << 32
}

/// The 64-bit words of an IPv6 client's key as they stand in a way.
#[inline(always)]
const fn words(key: &Key) -> [u64; 3] {
    let [a, b, c, d] = key.source.0;
    [
        a as u64 | (b as u64) << 32,
        c as u64 | (d as u64) << 32,
        key.ports as u64,
    ]
}

impl Way for Way6 {
    #[inline(always)]
    fn matches(way: *mut Self, key: &Key) -> bool {
        let [a, b, c] = words(key);
        let way = way.cast::<u64>();
        // SAFETY: as for IPv4.
        unsafe {
            way.read_volatile() == a && way.add(1).read_volatile() == b && way.add(2).read_volatile() == c
        }
    }

    #[inline(always)]
    fn write(way: *mut Self, key: &Key) {
        let [a, b, c] = words(key);
        let way = way.cast::<u64>();
        // SAFETY: as for IPv4.
        unsafe {
            way.write_volatile(a);
            way.add(1).write_volatile(b);
            way.add(2).write_volatile(c);
        }
    }

    #[inline(always)]
    fn state(way: *mut Self) -> *mut State {
        // SAFETY: as for IPv4.
        unsafe { &raw mut (*way).state }
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

/// A flow that was found: whose it is, and its way's state to be touched or changed.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Its state when it was read.
    pub(crate) state: State,
    place: *mut State,
}

/// Looks a flow up.
#[inline(always)]
pub(crate) fn find(bucket: Bucket, key: &Key) -> Option<Found> {
    match bucket {
        // SAFETY: the bucket is a map value.
        Bucket::V4(bucket) => find_in(unsafe { (&raw mut (*bucket).ways).cast::<Way4>() }, key),
        // SAFETY: as above.
        Bucket::V6(bucket) => find_in(unsafe { (&raw mut (*bucket).ways).cast::<Way6>() }, key),
    }
}

#[inline(always)]
fn find_in<W: Way>(ways: *mut W, key: &Key) -> Option<Found> {
    for at in 0..WAYS {
        // SAFETY: the bucket has as many ways.
        let way = unsafe { ways.add(at) };
        if !W::matches(way, key) {
            continue;
        }
        let place = W::state(way);
        // SAFETY: the way lies in a map value; the word is read at once.
        let state = State::from_word(unsafe { place.cast::<u64>().read_volatile() });
        // Should another CPU have written the way in between, key or state are no longer those that belong together.
        if state.is_readable() && state.vip == key.vip && W::matches(way, key) {
            return Some(Found { state, place });
        }
    }
    None
}

impl Found {
    /// Notes another packet of the flow. Nothing is written if the stamp says so already, so that CPUs that read the
    /// bucket keep it in their caches (on the general way: where it was asked for by [`prefetch`], it is this CPU's).
    #[inline(always)]
    pub(crate) fn touch(self, now: u32, evidence: Evidence) {
        let stamp = self.state.touched(now, evidence);
        if stamp != self.state.stamp {
            // SAFETY: the state lies in a map value. If the way was given away meanwhile, its new flow is thought to
            // have been seen now, which it was.
            unsafe { (&raw mut (*self.place).stamp).write_volatile(stamp) };
        }
    }

    /// Gives the way another state. Should it have changed meanwhile, it stays as it is.
    #[inline(always)]
    pub(crate) fn change(self, new: State) {
        exchange(self.place.cast(), self.state.word(), new.word());
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
    match bucket {
        Bucket::V4(bucket) => {
            // SAFETY: the bucket is a map value.
            let ways = unsafe { (&raw mut (*bucket).ways).cast::<Way4>() };
            record_in(ways, key, state, now, idle, evidence)
        }
        Bucket::V6(bucket) => {
            // SAFETY: as above.
            let ways = unsafe { (&raw mut (*bucket).ways).cast::<Way6>() };
            record_in(ways, key, state, now, idle, evidence)
        }
    }
}

#[inline(always)]
fn record_in<W: Way>(ways: *mut W, key: &Key, state: State, now: u32, idle: u32, evidence: Evidence) -> bool {
    let read = |at: usize| {
        // SAFETY: the bucket has as many ways; the word is read at once.
        State::from_word(unsafe { W::state(ways.add(at)).cast::<u64>().read_volatile() })
    };
    let states = [read(0), read(1), read(2), read(3)];
    let Some(at) = victim(states, now, idle, evidence) else {
        return false;
    };
    // One after the other, because the verifier wants offsets that it knows.
    #[expect(
        clippy::needless_range_loop,
        reason = "an iterator hides the offset from the verifier"
    )]
    for way in 0..WAYS {
        if way == at {
            // SAFETY: as above.
            let place = unsafe { ways.add(way) };
            let is_written = write(place, key, states[way], state);
            if is_written && let Some(eviction) = states[way].eviction(now, idle) {
                counters::evicted(eviction.index());
            }
            return is_written;
        }
    }
    false
}

#[inline(always)]
fn write<W: Way>(way: *mut W, key: &Key, old: State, new: State) -> bool {
    let place = W::state(way).cast::<u64>();
    // Another CPU may have taken the way just now; the flow is recorded by its next packet then.
    if !exchange(place, old.word(), State::LOCKED.word()) {
        return false;
    }
    W::write(way, key);
    // SAFETY: the state lies in a map value; it is written at once, after the key.
    unsafe { place.write_volatile(new.word()) };
    true
}

/// Replaces a word of a map value that other CPUs write, too, if it is still the old one.
#[inline(always)]
fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the word lies in a map value, aligned.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
            options(nostack),
        );
    }
    found == old
}
