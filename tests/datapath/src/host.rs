//! What the parser and the rules say on the host: the code that the program was compiled from, without a kernel.

use std::net::IpAddr;

use edge_common::cursor::Slice;
use edge_common::decap::{self, Settings};
use edge_common::header::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, VLAN_LEN};
use edge_common::{Address, DropReason, PassReason, Verdict, icmp, malformed, parse};
use edge_model::DataPathConfig;

/// Why a frame drops on a node with this configuration and no lists or limits; `None`: it does not.
#[must_use]
pub fn reason_to_drop(frame: &[u8], config: &DataPathConfig) -> Option<DropReason> {
    match unpacked(frame, config) {
        Err(reason) => Some(reason),
        Ok(Some(inner)) => judged(&inner, config),
        Ok(None) => judged(frame, config),
    }
}

/// The frame as it is after its tunnel was taken off; `None` if it came by none.
fn unpacked(frame: &[u8], config: &DataPathConfig) -> Result<Option<Vec<u8>>, DropReason> {
    let mut cursor = Slice::new(frame);
    let Ok(ethertype) = parse::ethertype(&mut cursor) else {
        return Ok(None);
    };
    let Some(outer) = decap::outer(&mut cursor, ethertype, &ends(config))? else {
        return Ok(None);
    };
    let inner = decap::inner(&mut cursor, &outer)?;
    if !is_virtual(inner.destination, config) {
        return Err(DropReason::TunnelInner);
    }
    if inner.is_expired() {
        return Err(DropReason::TunnelTtl);
    }
    let link_len = link_len(frame);
    let ethertype = if outer.is_inner_v6 {
        ETHERTYPE_IPV6
    } else {
        ETHERTYPE_IPV4
    };
    let mut unpacked = frame[..link_len - 2].to_vec();
    unpacked.extend(ethertype.to_be_bytes());
    unpacked.extend(&frame[link_len + outer.len..]);
    Ok(Some(unpacked))
}

/// Length of the link header with its VLAN tags.
fn link_len(frame: &[u8]) -> usize {
    let is_tag = |at: usize| matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]);
    let mut len = ETHERNET_LEN;
    while len < ETHERNET_LEN + 2 * VLAN_LEN && is_tag(len - 2) {
        len += VLAN_LEN;
    }
    len
}

fn ends(config: &DataPathConfig) -> Settings {
    let Some(tunnels) = &config.tunnels else {
        return Settings::default();
    };
    let all = tunnels.endpoints.iter().chain(&tunnels.relays);
    let mut ends = all.copied().map(Address::from).cycle();
    Settings {
        endpoints: std::array::from_fn(|_| ends.next().unwrap_or_default()),
        gue_port: tunnels.gue_port.into(),
        trusted: 0,
        ..Settings::default()
    }
}

fn is_virtual(address: Address, config: &DataPathConfig) -> bool {
    config.vips.iter().any(|vip| IpAddr::from(address) == vip.address)
}

fn judged(frame: &[u8], config: &DataPathConfig) -> Option<DropReason> {
    let mut cursor = Slice::new(frame);
    let reason = |verdict| match verdict {
        Verdict::Drop { reason, .. } => Some(reason),
        Verdict::Pass(_) | Verdict::Deliver { .. } | Verdict::Forward { .. } | Verdict::Reply { .. } => None,
    };
    let network = match parse::network(&mut cursor) {
        Ok(network) => network,
        Err(verdict) => return reason(verdict),
    };
    if !is_virtual(network.destination, config) {
        return None;
    }
    let transport = match parse::transport(&mut cursor, &network) {
        Ok(transport) => transport,
        Err(Verdict::Pass(PassReason::OtherProtocol)) => return without_ports(frame),
        Err(verdict) => return reason(verdict),
    };
    let is_served = config.vips.iter().any(|vip| {
        Address::from(vip.address) == network.destination
            && u32::from(vip.port) == transport.destination_port
            && u32::from(vip.protocol.number()) == transport.protocol
    });
    if !is_served {
        return Some(DropReason::NoService);
    }
    malformed::check(&network, &transport, true).err()
}

fn without_ports(frame: &[u8]) -> Option<DropReason> {
    let mut cursor = Slice::new(frame);
    let network = parse::network(&mut cursor).ok()?;
    icmp::message(&mut cursor, &network).err()
}
