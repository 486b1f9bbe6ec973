//! Chooses the worker of a flow.

use edge_common::vip::LOCAL_POOL;
use edge_common::{Config, DropReason, Flow};

use crate::maps;

/// The worker that the Maglev table has for the flow's hash.
#[inline(always)]
pub(crate) fn worker(config: &Config, flow: &Flow) -> Result<u32, DropReason> {
    by_hash(config.hash.hash(flow))
}

/// The worker that it has for a hash.
#[inline(always)]
pub(crate) fn by_hash(hash: u64) -> Result<u32, DropReason> {
    let table = maps::MAGLEV
        .get(u32::from(LOCAL_POOL))
        .ok_or(DropReason::NoWorker)?;
    table.worker(hash).map(u32::from).ok_or(DropReason::NoWorker)
}
