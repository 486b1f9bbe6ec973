//! Drops what no honest client sends to a virtual address.

use edge_common::malformed;
use edge_common::parse::{Network, Transport};
use edge_common::{Config, DropReason, UDP};

use crate::maps;

/// Refuses a packet that breaks a rule, or a datagram from a port that reflection attacks come from.
#[inline(always)]
pub(crate) fn check(
    config: &Config,
    network: &Network,
    transport: &Transport,
    is_for_service: bool,
) -> Result<(), DropReason> {
    malformed::check(network, transport, is_for_service)?;
    if config.has(Config::HAS_REFLECTION_PORTS) && transport.protocol == UDP as u32 {
        let port = transport.source_port;
        let word = maps::REFLECTION_PORTS.get(port / 64).copied().unwrap_or_default();
        if word >> (port % 64) & 1 != 0 {
            return Err(DropReason::ReflectionPort);
        }
    }
    Ok(())
}
