//! Drops or slows down the sources that tier 2 gave a penalty.

use edge_common::maps::PENALTY_CELL_BITS;
use edge_common::penalty::{Entry, Judgement};
use edge_common::prefix::{Prefix, place};
use edge_common::{Address, Config, DropReason};

use super::source::{MAX_CLASSES, pair, unpair};
use crate::{clock, counters, maps};

/// Refuses a packet that a penalty of its source is about, be it one of the address or of a prefix around it.
#[inline(always)]
pub(crate) fn check(config: &Config, source: Address, opens_connection: bool) -> Result<(), DropReason> {
    if !config.has(Config::HAS_PENALTIES) {
        return Ok(());
    }
    let candidates = config.penalties.candidates(source, |hash| {
        let (word, shift) = place(hash, PENALTY_CELL_BITS);
        (maps::PENALTY_CELLS.get(word).copied().unwrap_or_default() >> shift) as u8
    });
    if candidates == 0 {
        return Ok(());
    }
    let [a, b, c, d] = source.0;
    match penalty_search(pair(a, b), pair(c, d), candidates, opens_connection as u32) {
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
    for _ in 0..MAX_CLASSES {
        if candidates == 0 {
            break;
        }
        let prefix = Prefix::of_class(source, candidates.trailing_zeros());
        candidates &= candidates - 1;
        let Some(entry) = maps::PENALTIES.get_ptr_mut(prefix) else {
            continue;
        };
        let fate = serve(entry, opens_connection != 0);
        if fate != ADMITTED {
            return fate;
        }
    }
    ADMITTED
}

/// Holds a packet against one penalty.
#[inline(always)]
fn serve(entry: *mut Entry, opens_connection: bool) -> u32 {
    // SAFETY: the kernel frees a map element no earlier than after the program's end. Should it be given to another
    // source at this moment, one packet is judged or counted by that source's penalty.
    unsafe {
        match (*entry).judge(clock::now(), opens_connection) {
            Judgement::None => ADMITTED,
            Judgement::Token(full_at) => {
                (*entry).full_at = full_at;
                ADMITTED
            }
            Judgement::Drop(reason) => {
                counters::add_shared(&raw mut (*entry).dropped);
                if matches!(reason, DropReason::PenaltyRate) {
                    BEYOND_RATE
                } else {
                    DROPPED
                }
            }
        }
    }
}
