//! Is the packet for a virtual address, and for which VIP?

use edge_common::maps::VIP_BUCKET_BITS;
use edge_common::parse::{Network, Transport};
use edge_common::vip::{Entry, Key};
use edge_common::vip_table::{Found, bucket_of};
use edge_common::{Config, DropReason, PassReason, Verdict};

use crate::maps;

/// What a packet to a virtual address is for.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A VIP.
    Service(Entry),
    /// A port that no VIP has, on an address that is the node's own too.
    AddressOnly,
}

impl Target {
    /// Index of the VIP.
    #[inline(always)]
    pub(crate) fn vip(self) -> Option<u32> {
        match self {
            Self::Service(entry) => Some(u32::from(entry.vip)),
            Self::AddressOnly => None,
        }
    }
}

/// Sends the traffic of other addresses on without a look-up.
#[inline(always)]
pub(crate) fn prefilter(config: &Config, network: &Network) -> Result<(), Verdict> {
    if !config.has(Config::IS_CONFIGURED) {
        return Err(Verdict::Pass(PassReason::NotConfigured));
    }
    if config.vips.may_contain(&network.destination) {
        Ok(())
    } else {
        Err(Verdict::Pass(PassReason::NoVip))
    }
}

/// The fate of a packet whose transport header cannot be used: `fate` if it is for a virtual address.
#[inline(always)]
pub(crate) fn confirm(network: &Network, fate: Verdict) -> Verdict {
    if is_virtual(network) {
        fate
    } else {
        Verdict::Pass(PassReason::NoVip)
    }
}

/// What the packet is for. A packet for no virtual address passes; one for a port that nobody can serve is dropped
/// here, before it costs its source a token and the flood stage a look-up.
#[inline(always)]
pub(crate) fn find(network: &Network, transport: &Transport) -> Result<Target, Verdict> {
    let key = Key::service(
        network.destination,
        transport.destination_port as u16,
        transport.protocol as u8,
    );
    if let Some(entry) = lookup(&key) {
        return Ok(Target::Service(entry));
    }
    match lookup(&Key::marker(network.destination)) {
        Some(marker) if marker.has(Entry::SHARED) => Ok(Target::AddressOnly),
        Some(_) => Err(Verdict::drop(DropReason::NoService)),
        None => Err(Verdict::Pass(PassReason::NoVip)),
    }
}

#[inline(always)]
fn is_virtual(network: &Network) -> bool {
    lookup(&Key::marker(network.destination)).is_some()
}

#[inline(always)]
pub(crate) fn lookup(key: &Key) -> Option<Entry> {
    // Userspace may give the memory to another VIP at the same moment; the packet then goes the way of either, which is
    // the case for every packet during a change.
    match maps::VIPS.get(bucket_of(key, VIP_BUCKET_BITS))?.find(key) {
        Found::Entry(entry) => Some(entry),
        // SAFETY: the entry is copied out at once.
        Found::Elsewhere => unsafe { maps::MORE_VIPS.get(key) }.copied(),
        Found::Nowhere => None,
    }
}
