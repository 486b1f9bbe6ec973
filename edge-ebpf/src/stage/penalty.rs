//! Drops the sources that tier 2 gave a penalty.

use edge_common::{Address, Config, DropReason};

use crate::{clock, counters, maps};

/// Refuses a packet from a source with a penalty that has not ended.
#[inline(always)]
pub(crate) fn check(config: &Config, source: Address) -> Result<(), DropReason> {
    if !config.has(Config::HAS_PENALTIES) {
        return Ok(());
    }
    let Some(entry) = maps::PENALTIES.get_ptr_mut(source) else {
        return Ok(());
    };
    // SAFETY: the kernel frees a map element no earlier than after the program's end. Should it be given to
    // another source at this moment, one packet is judged or counted by that source's penalty.
    unsafe {
        if clock::now() >= (*entry).until_ns {
            return Ok(());
        }
        counters::add_shared(&raw mut (*entry).dropped);
    }
    Err(DropReason::Penalty)
}
