//! Is the packet for a virtual address, and for which VIP?

use edge_common::maps::VIP_BUCKET_BITS;
use edge_common::parse::{Network, Transport};
use edge_common::vip::{Entry, Key};
use edge_common::vip_table::{Found, bucket_of};
use edge_common::{Address, Config, DropReason, Flow, PassReason, Verdict};

use super::source::{pair, unpair};
use crate::{maps, state};

/// What a packet to a virtual address is for.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// A VIP.
    Service(Entry),
    /// A port that no VIP has, on an address that is the node's own too.
    AddressOnly,
}

/// Sends the traffic of other addresses on without a look-up.
#[inline(always)]
pub(crate) fn prefilter(config: &Config, network: &Network) -> Result<(), Verdict> {
    if !config.has(Config::IS_CONFIGURED) {
        return Err(Verdict::Pass(PassReason::NotConfigured));
    }
    let may_be_virtual = config.vips.may_contain(&network.destination)
        || config.has(Config::HAS_VIP_PREFIXES) && config.vip_prefixes.may_cover(&network.destination);
    if may_be_virtual {
        Ok(())
    } else {
        Err(Verdict::Pass(PassReason::NoVip))
    }
}

/// The fate of a packet whose transport header cannot be used: `fate` if it is for a virtual address.
#[inline(always)]
pub(crate) fn confirm(config: &Config, network: &Network, fate: Verdict) -> Verdict {
    if is_virtual(config, network) {
        fate
    } else {
        Verdict::Pass(PassReason::NoVip)
    }
}

/// What the packet is for. A packet for no virtual address passes; one for a port that nobody can serve is dropped
/// here, before it costs its source a token and the flood stage a look-up.
#[inline(always)]
pub(crate) fn find(config: &Config, network: &Network, transport: &Transport) -> Result<Target, Verdict> {
    let (port, protocol) = (transport.destination_port, transport.protocol);
    let key = Key::service(network.destination, port as u16, protocol as u8);
    if let Some(entry) = lookup(&key) {
        return Ok(Target::Service(entry));
    }
    let [a, b, c, d] = network.destination.0;
    match vip_search(pair(a, b), pair(c, d), port << 16 | protocol, config.flags) {
        SERVICE => match state::packet() {
            // SAFETY: the element is this CPU's alone, and the search wrote the entry.
            Some(packet) => Ok(Target::Service(unsafe { (*packet).vip })),
            None => Err(Verdict::Pass(PassReason::NotConfigured)),
        },
        ADDRESS_ONLY => Ok(Target::AddressOnly),
        NO_SERVICE => Err(Verdict::drop(DropReason::NoService)),
        _ => Err(Verdict::Pass(PassReason::NoVip)),
    }
}

/// The VIP of a flow as clients have it, if it is one's.
#[inline(always)]
pub(crate) fn service(config: &Config, flow: &Flow) -> Option<Entry> {
    let key = Key::service(flow.destination, flow.destination_port, flow.protocol);
    let [a, b, c, d] = flow.destination.0;
    let service = u32::from(flow.destination_port) << 16 | u32::from(flow.protocol);
    match lookup(&key) {
        None if vip_search(pair(a, b), pair(c, d), service, config.flags) == SERVICE => {
            // SAFETY: the element is this CPU's alone, and the search wrote the entry.
            state::packet().map(|packet| unsafe { (*packet).vip })
        }
        found => found,
    }
}

/// Answers of [`vip_search`].
const NO_VIP: u32 = 0;
const SERVICE: u32 = 1;
const ADDRESS_ONLY: u32 = 2;
const NO_SERVICE: u32 = 3;

/// Looks for a VIP of all ports and of a prefix, and for the address's marker; a VIP is noted in the packet in work.
/// `service` is port and protocol. It is a function of its own, because so many ways lead here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn vip_search(high: u64, low: u64, service: u32, flags: u32) -> u32 {
    let address = unpair(high, low);
    let key = Key::service(address, (service >> 16) as u16, service as u8);
    if let Some(entry) = wide(key, flags) {
        let Some(packet) = state::packet() else {
            return NO_VIP;
        };
        // SAFETY: the element is this CPU's alone.
        unsafe { (*packet).vip = entry };
        return SERVICE;
    }
    match marker(address, flags) {
        Some(marker) if marker.has(Entry::SHARED | Entry::PASSES_UNSERVED) => ADDRESS_ONLY,
        Some(_) => NO_SERVICE,
        None => NO_VIP,
    }
}

/// The VIP of all ports that a service belongs to, or the VIP of a prefix. An address that has VIPs of its own is not
/// the prefix's.
#[inline(always)]
pub(crate) fn wide(key: Key, flags: u32) -> Option<Entry> {
    let has_all_ports = flags & Config::HAS_ALL_PORTS != 0;
    if has_all_ports && let Some(entry) = lookup(&key.on_all_ports()) {
        return Some(entry);
    }
    if flags & Config::HAS_VIP_PREFIXES == 0 || lookup(&Key::marker(key.address)).is_some() {
        return None;
    }
    let key = key.on_prefix(prefix(key.address)?);
    match lookup(&key) {
        None if has_all_ports => lookup(&key.on_all_ports()),
        found => found,
    }
}

/// The marker of an address, or of the prefix that it belongs to.
#[inline(always)]
pub(crate) fn marker(address: Address, flags: u32) -> Option<Entry> {
    let key = Key::marker(address);
    match lookup(&key) {
        None if flags & Config::HAS_VIP_PREFIXES != 0 => lookup(&key.on_prefix(prefix(address)?)),
        found => found,
    }
}

/// Free bits of the longest virtual prefix that covers an address.
#[inline(always)]
fn prefix(address: Address) -> Option<u8> {
    let key = aya_ebpf::maps::lpm_trie::Key::new(128, address);
    maps::VIP_PREFIXES.get(&key).map(|bits| *bits as u8)
}

#[inline(always)]
fn is_virtual(config: &Config, network: &Network) -> bool {
    marker(network.destination, config.flags).is_some()
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
