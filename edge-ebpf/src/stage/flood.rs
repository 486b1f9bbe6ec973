//! Holds each source to its rates of packets and of new connections.

use edge_common::flood::set_of;
use edge_common::maps::FLOOD_SET_BITS;
use edge_common::{Address, Config, DropReason};

use crate::{clock, maps};

/// Refuses a packet whose source has used up its tokens.
///
/// Two CPUs that take tokens of one source at the same moment may both take the last: a limit of N admits a few
/// packets more per burst, and no lock is taken for each packet.
#[inline(always)]
pub(crate) fn check(config: &Config, source: Address, opens_connection: bool) -> Result<(), DropReason> {
    if !config.has(Config::HAS_FLOOD_LIMITS) {
        return Ok(());
    }
    let now = clock::inlined();
    let source = source.source_prefix();
    let place = set_of(source, config.hash.salt(), FLOOD_SET_BITS);
    let Some(set) = maps::FLOOD.get_ptr_mut(place) else {
        return Ok(());
    };
    // SAFETY: an element of an array map, for the program's life; any bit pattern is a value.
    unsafe { (*set).admit(source, &config.flood, now, opens_connection) }
}
