//! What CPUs do at a time in a bucket of the connection table: look-up, touch, change and record.
//!
//! The programs do it in map memory, the host's tests in memory of their own, plain or loom's: [`Place`] stands for
//! each. What is read has to be asked of memory anew each time, because other CPUs write it, and the verifier wants
//! offsets into a map value that it knows: so all of it is inlined, and loops have a known length.

use core::mem::offset_of;

use super::{Evidence, Key, State, WAYS, Way4, Way6, victim};
use crate::verdict::Eviction;

/// A place in a bucket, aligned to eight bytes.
///
/// Each access is one, whatever other CPUs do meanwhile. A CPU's loads are done in their order and its stores in theirs,
/// as on x86; a load may be done before a store that comes before it.
pub trait Place: Copy {
    /// The place so many bytes further on.
    #[must_use]
    fn at(self, offset: usize) -> Self;
    /// The word there.
    fn read(self) -> u64;
    /// Replaces the word.
    fn write(self, word: u64);
    /// Replaces the first half of the word, which is its low one, and leaves the other as it is.
    fn write_half(self, half: u32);
    /// Replaces the word if it is still the old one, in one step.
    fn exchange(self, old: u64, new: u64) -> bool;
}

/// Low bits of a state's word that are its stamp, which changes with each packet.
const STAMP_BITS: u32 = 32;

/// A way of the table: its key, and its state as one word.
pub trait Way: Sized {
    /// Where the state is.
    const STATE: usize;
    /// Whether the way at this place has the key.
    fn matches<P: Place>(way: P, key: &Key) -> bool;
    /// Gives the way the key.
    fn write<P: Place>(way: P, key: &Key);
}

impl Way for Way4 {
    const STATE: usize = offset_of!(Self, state);

    #[inline(always)]
    fn matches<P: Place>(way: P, key: &Key) -> bool {
        way.read() == first_word(key)
    }

    #[inline(always)]
    fn write<P: Place>(way: P, key: &Key) {
        way.write(first_word(key));
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
    const STATE: usize = offset_of!(Self, state);

    #[inline(always)]
    fn matches<P: Place>(way: P, key: &Key) -> bool {
        let [a, b, c] = words(key);
        way.read() == a && way.at(8).read() == b && way.at(16).read() == c
    }

    #[inline(always)]
    fn write<P: Place>(way: P, key: &Key) {
        let [a, b, c] = words(key);
        way.write(a);
        way.at(8).write(b);
        way.at(16).write(c);
    }
}

/// A flow that was found: whose it is, and its way's state to be touched or changed.
#[derive(Clone, Copy)]
pub struct Found<P> {
    /// Its state when it was read.
    pub state: State,
    place: P,
}

/// Looks a flow up in the ways of a bucket.
#[inline(always)]
pub fn find<W: Way, P: Place>(ways: P, key: &Key) -> Option<Found<P>> {
    for at in 0..WAYS {
        let way = ways.at(at * size_of::<W>());
        if !W::matches(way, key) {
            continue;
        }
        let place = way.at(W::STATE);
        let word = place.read();
        let state = State::from_word(word);
        // Should another CPU have written the way in between, key or state are no longer those that belong together. It may
        // have given the way back, too: then the key is the same again, and the worker another or the flow's.
        let is_one = |again: u64| (again ^ word) >> STAMP_BITS == 0;
        if state.is_readable() && state.vip == key.vip && W::matches(way, key) && is_one(place.read()) {
            return Some(Found { state, place });
        }
    }
    None
}

impl<P: Place> Found<P> {
    /// Notes another packet of the flow. Nothing is written if the stamp says so already, so that CPUs that read the
    /// bucket keep it in their caches (on the general way: where it was asked for by a write, it is this CPU's).
    #[inline(always)]
    pub fn touch(self, now: u32, evidence: Evidence) {
        let stamp = self.state.touched(now, evidence);
        if stamp != self.state.stamp {
            // If the way was given away meanwhile, its new flow is thought to have been seen now, which it was.
            self.place.at(offset_of!(State, stamp)).write_half(stamp);
        }
    }

    /// Gives the way another state. Should it have changed meanwhile, it stays as it is.
    #[inline(always)]
    pub fn change(self, new: State) {
        self.place.exchange(self.state.word(), new.word());
    }
}

/// Records a flow in one of the ways of a bucket, and tells what had to give way. False if no way gives its place away.
#[inline(always)]
pub fn record<W: Way, P: Place>(
    ways: P,
    key: &Key,
    state: State,
    now: u32,
    idle: u32,
    evidence: Evidence,
    evicted: impl FnOnce(Eviction),
) -> bool {
    let read = |at: usize| State::from_word(ways.at(at * size_of::<W>() + W::STATE).read());
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
            let place = ways.at(way * size_of::<W>());
            let is_written = write::<W, P>(place, key, states[way], state);
            if is_written && let Some(eviction) = states[way].eviction(now, idle) {
                evicted(eviction);
            }
            return is_written;
        }
    }
    false
}

#[inline(always)]
fn write<W: Way, P: Place>(way: P, key: &Key, old: State, new: State) -> bool {
    let place = way.at(W::STATE);
    // Another CPU may have taken the way just now; the flow is recorded by its next packet then.
    if !place.exchange(old.word(), State::LOCKED.word()) {
        return false;
    }
    W::write(way, key);
    // After the key.
    place.write(new.word());
    true
}

#[cfg(test)]
mod tests;
