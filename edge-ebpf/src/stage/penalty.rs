//! Drops or slows down the sources that tier 2 gave a penalty.

use edge_common::maps::PENALTY_BUCKET_BITS;
use edge_common::penalty::{Entry, Judgement};
use edge_common::prefix::{Prefix, half};
use edge_common::{Address, Config, DropReason};

use super::prefixes;
use super::source::{MAX_CLASSES, pair, unpair};
use crate::{clock, maps};

/// Refuses a packet that a penalty of its source is about, be it one of the address or of a prefix around it.
#[inline(always)]
pub(crate) fn check(
    config: &Config,
    source: Address,
    marks: u64,
    opens_connection: bool,
) -> Result<(), DropReason> {
    if !config.has(Config::HAS_PENALTIES) {
        return Ok(());
    }
    let candidates = config
        .penalties
        .candidates(source, (marks >> half::PENALTIES) as u8);
    if candidates == 0 {
        return Ok(());
    }
    // As a rule one class is left: that saves the call.
    let fate = if candidates & (candidates - 1) == 0 {
        let prefix = Prefix::of_class(source, candidates.trailing_zeros());
        hold(&prefix, clock::inlined(), opens_connection)
    } else {
        let [a, b, c, d] = source.0;
        penalty_search(pair(a, b), pair(c, d), candidates, opens_connection as u32)
    };
    match fate {
        DROPPED => Err(DropReason::Penalty),
        BEYOND_RATE => Err(DropReason::PenaltyRate),
        _ => Ok(()),
    }
}

/// Answers of [`penalty_search`]: numbers, because a function of its own returns one register.
const ADMITTED: u32 = 0;
const DROPPED: u32 = 1;
const BEYOND_RATE: u32 = 2;

/// Holds a packet against the penalties of its source's prefixes of these classes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn penalty_search(high: u64, low: u64, mut candidates: u32, opens_connection: u32) -> u32 {
    let source = unpair(high, low);
    let now = clock::inlined();
    for _ in 0..MAX_CLASSES {
        if candidates == 0 {
            break;
        }
        let prefix = Prefix::of_class(source, candidates.trailing_zeros());
        candidates &= candidates - 1;
        let fate = hold(&prefix, now, opens_connection != 0);
        if fate != ADMITTED {
            return fate;
        }
    }
    ADMITTED
}

/// Holds a packet against the penalty of one prefix, if it has one.
#[inline(always)]
fn hold(prefix: &Prefix, now: u64, opens_connection: bool) -> u32 {
    let place = prefixes::find(
        &maps::PENALISED,
        &maps::MORE_PENALISED,
        PENALTY_BUCKET_BITS,
        prefix,
    );
    match place.and_then(|place| maps::PENALTIES.get_ptr_mut(place)) {
        Some(entry) => serve(entry, now, opens_connection),
        None => ADMITTED,
    }
}

/// Holds a packet against one penalty.
#[inline(always)]
fn serve(entry: *mut Entry, now: u64, opens_connection: bool) -> u32 {
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value. Should it be given to
    // another source at this moment, one packet is judged or counted by that source's penalty.
    unsafe {
        match (*entry).judge(now, opens_connection) {
            Judgement::None => ADMITTED,
            Judgement::Token(full_at) => {
                (*entry).full_at = full_at;
                ADMITTED
            }
            Judgement::Drop(reason) => {
                (*entry).dropped += 1;
                if matches!(reason, DropReason::PenaltyRate) {
                    BEYOND_RATE
                } else {
                    DROPPED
                }
            }
        }
    }
}
