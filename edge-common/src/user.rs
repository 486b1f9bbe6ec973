//! Userspace's leave to copy the shared types over the bpf(2) boundary.

use crate::{
    Address, Config, bench, connection, counter, decap, flood, maglev, penalty, pktgen, prefix, prefix_table,
    route, syncookie, tenant, verdict, vip, vip_table, worker,
};

/// Marks types as plain data.
macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers and arrays of integers: every bit pattern is
            // a value, and explicit padding fields leave no byte unset (the sizes are asserted beside each type).
            unsafe impl aya::Pod for $type {}
        )+
    };
}

pod!(
    Address,
    Config,
    bench::Settings,
    bench::State,
    connection::Bucket4,
    connection::Bucket6,
    counter::Drops,
    counter::SteerCounters,
    counter::VipCounters,
    counter::WorkerCounters,
    flood::Buckets,
    flood::Set,
    maglev::Table,
    penalty::Entry,
    pktgen::Settings,
    pktgen::Progress,
    prefix::Prefix,
    prefix_table::Bucket,
    decap::Trusted,
    route::Uplink,
    syncookie::Guard,
    tenant::Tenant,
    verdict::Trace,
    vip::Entry,
    vip::Key,
    vip_table::Bucket,
    vip::PrefixKey,
    worker::Entry,
);
