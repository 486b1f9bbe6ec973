//! Holds each source to its rates of packets and of new connections.

use edge_common::flood::Buckets;
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
    let now = clock::now();
    let source = source.source_prefix();
    match maps::FLOOD.get_ptr_mut(source) {
        Some(buckets) => {
            // SAFETY: the kernel frees a map element no earlier than after the program's end, and any bit pattern
            // is a value of Buckets.
            let before = unsafe { buckets.read() };
            let after = before.admit(&config.flood, now, opens_connection)?;
            // SAFETY: as above.
            unsafe { buckets.write(after) };
        }
        None => {
            let first = Buckets::default().admit(&config.flood, now, opens_connection)?;
            // It fails only while another CPU inserts the same source; the packet then costs no token.
            let _ = maps::FLOOD.insert(source, first, 0);
        }
    }
    Ok(())
}
