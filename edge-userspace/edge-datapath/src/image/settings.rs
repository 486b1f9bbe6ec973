//! The settings that every packet's way through the programs begins with.

use edge_common::{Address, Config, HashKey, flood, tunnel, vip};
use edge_model::{DataPathConfig, FloodLimits, Protocol, Spread, TokenRate, Tunnel, Vip};

use crate::{Error, sources, syncookies, sys, tunnels};

/// Settings for a configuration.
pub(super) fn config(desired: &DataPathConfig, sources: &sources::Entries) -> Result<Config, Error> {
    let mut config = Config {
        hash: HashKey::from_seed(desired.hash_seed),
        workers: desired
            .workers
            .iter()
            .map(|worker| u32::from(worker.id.0) + 1)
            .max()
            .unwrap_or_default(),
        flags: Config::IS_CONFIGURED,
        ..Config::default()
    };
    if let Some(limits) = desired.flood {
        config.flags |= Config::HAS_FLOOD_LIMITS;
        config.flood = flood_limits(limits);
    }
    if !sources.is_empty() {
        config.flags |= Config::HAS_SOURCES;
        [config.sources, config.allowed] = sources::lengths(sources);
    }
    if !desired.reflection_ports.is_empty() {
        config.flags |= Config::HAS_REFLECTION_PORTS;
    }
    let (flags, syn_cookies) = syncookies::desired(desired);
    config.flags |= flags;
    config.syn_cookies = syn_cookies;
    for vip in &desired.vips {
        let address = Address::from(vip.address);
        if vip.free_bits > 0 {
            config.flags |= Config::HAS_VIP_PREFIXES;
            config.vip_prefixes.insert_prefix(&address, vip.free_bits);
        } else {
            config.vips.insert(&address);
        }
        if vip.port == 0 {
            config.flags |= Config::HAS_ALL_PORTS;
        }
    }
    let (flags, tunnels) = tunnels::settings(desired)?;
    config.flags |= flags;
    config.decap = tunnels;
    config.tunnel = tunnel(&desired.tunnel);
    config.idle_ticks = sys::ticks(desired.connections.idle);
    Ok(config)
}

fn tunnel(desired: &Tunnel) -> tunnel::Settings {
    // Bits after the prefix, of the address's last word.
    let free = |prefix: &edge_model::Prefix, bits: u8| {
        let free = u32::from(bits - prefix.prefix_len()).min(32);
        (u32::MAX.checked_shr(32 - free).unwrap_or(0)).to_be()
    };
    let [.., source4] = desired
        .source4
        .map_or([0; 4], |prefix| Address::from(prefix.address()).0);
    tunnel::Settings {
        source4,
        source4_bits: desired.source4.map_or(0, |prefix| free(&prefix, 32)),
        source6: desired
            .source6
            .map_or([0; 4], |prefix| Address::from(prefix.address()).0),
        source6_bits: desired.source6.map_or(0, |prefix| free(&prefix, 128)),
        padding: 0,
    }
}

fn flood_limits(limits: FloodLimits) -> flood::Limits {
    let rate = |rate: TokenRate| flood::Rate::new(rate.per_second, rate.burst);
    flood::Limits {
        packets: rate(limits.packets),
        new_connections: rate(limits.new_connections),
    }
}

/// The bits of a VIP's entry.
pub(super) fn flags(vip: &Vip, desired: &DataPathConfig) -> u32 {
    use vip::Entry;
    let mut flags = match vip.spread {
        Spread::Flow => 0,
        Spread::NoSourcePort => Entry::HASH_NO_SOURCE_PORT,
        Spread::DestinationPort => Entry::HASH_DESTINATION_PORT,
        Spread::Source => Entry::SOURCE_AFFINITY,
    };
    if !vip.remembers {
        flags |= Entry::NO_CONNECTION_TABLE;
    }
    if vip.port == 0 || vip.free_bits > 0 {
        flags |= Entry::IS_WIDE;
    }
    if vip.pool.is_some() {
        flags |= Entry::FORWARDS;
        if desired.tunnel.second_hop && vip.protocol == Protocol::Tcp {
            flags |= Entry::SECOND_HOP;
        }
    }
    flags
}
