//! Chooses the worker of a flow.

use edge_common::vip::LOCAL_POOL;
use edge_common::{Config, DropReason, Flow};

use crate::maps;

/// The worker that the Maglev table has for the flow's hash.
#[inline(always)]
pub(crate) fn worker(config: &Config, flow: &Flow) -> Result<u32, DropReason> {
    let table = maps::MAGLEV
        .get(u32::from(LOCAL_POOL))
        .ok_or(DropReason::NoWorker)?;
    table
        .worker(config.hash.hash(flow))
        .map(u32::from)
        .ok_or(DropReason::NoWorker)
}
