//! Tunnels that end at this node, as the maps hold them.

use std::net::IpAddr;

use edge_common::decap::{MAX_ENDPOINTS, MAX_TRUSTED, Peer, Settings, Trusted};
use edge_common::{Address, Config};
use edge_model::{DataPathConfig, TunnelRole};

use crate::Error;

/// Bits before an IPv4 address in its IPv6 form.
const MAPPED_BITS: u32 = 96;

/// Flags and settings of a configuration.
pub(crate) fn settings(desired: &DataPathConfig) -> Result<(u32, Settings), Error> {
    let Some(tunnels) = &desired.tunnels else {
        return Ok((0, Settings::default()));
    };
    let all = tunnels.endpoints.iter().chain(&tunnels.relays);
    let endpoints: Vec<_> = all.copied().map(Address::from).collect();
    fits("ends of tunnels", endpoints.len(), MAX_ENDPOINTS)?;
    let Some(&first) = endpoints.first() else {
        return Ok((0, Settings::default()));
    };
    let mut settings = Settings {
        endpoints: [first; MAX_ENDPOINTS],
        gue_port: tunnels.gue_port.into(),
        trusted: tunnels.trusted.len() as u32,
        relays: ((1_u32 << tunnels.relays.len()) - 1) << tunnels.endpoints.len(),
        padding: 0,
    };
    for (to, endpoint) in settings.endpoints.iter_mut().zip(endpoints) {
        *to = endpoint;
    }
    let flags = match tunnels.role {
        TunnelRole::Gateway => Config::HAS_TUNNELS,
        TunnelRole::PlainHost { .. } => Config::HAS_TUNNELS | Config::IS_PLAIN_HOST,
    };
    Ok((flags, settings))
}

/// Who may send through a tunnel.
pub(crate) fn peers(desired: &DataPathConfig) -> Result<Trusted, Error> {
    let mut trusted = Trusted::default();
    let prefixes = desired.tunnels.as_ref().map(|tunnels| tunnels.trusted.as_slice());
    let prefixes = prefixes.unwrap_or_default();
    fits("trusted prefixes of tunnels", prefixes.len(), MAX_TRUSTED)?;
    for (peer, prefix) in trusted.peers.iter_mut().zip(prefixes) {
        let before = if prefix.address().is_ipv4() {
            MAPPED_BITS
        } else {
            0
        };
        *peer = Peer::new(prefix.address().into(), before + u32::from(prefix.prefix_len()));
    }
    Ok(trusted)
}

/// Virtual addresses of a host without gateway workers.
pub(crate) fn plain_addresses(desired: &DataPathConfig) -> impl Iterator<Item = IpAddr> + '_ {
    let role = desired.tunnels.as_ref().map(|tunnels| &tunnels.role);
    let addresses = match role {
        Some(TunnelRole::PlainHost { addresses }) => addresses.as_slice(),
        Some(TunnelRole::Gateway) | None => &[],
    };
    addresses.iter().copied()
}

fn fits(what: &'static str, wanted: usize, limit: usize) -> Result<(), Error> {
    if wanted > limit {
        return Err(Error::TooMany { what, wanted, limit });
    }
    Ok(())
}
