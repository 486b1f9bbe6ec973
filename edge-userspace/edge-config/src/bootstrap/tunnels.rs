//! The key `tunnels`: what load balancers send to this node.

use std::collections::HashSet;
use std::net::IpAddr;

use edge_common::decap::{MAX_ENDPOINTS, MAX_TRUSTED};
use edge_model::{TunnelRole, Tunnels};

use super::check::Check;
use super::raw::{RawTunnelRole, RawTunnels, RawVirtualAddress};

impl Check<'_> {
    /// Checks the ends of tunnels, with the virtual addresses that they bring packets for.
    pub(super) fn tunnels(&mut self, raw: &RawTunnels, virtual_addresses: &[RawVirtualAddress]) -> Tunnels {
        // What is no address is reported where the addresses are checked.
        let addresses = virtual_addresses
            .iter()
            .filter_map(|own| own.address.parse().ok());
        let addresses: Vec<IpAddr> = addresses.collect();
        if addresses.is_empty() {
            let hint = "list the virtual addresses that load balancers send packets for in virtualAddresses";
            self.error("tunnels", "brings nothing without a virtual address", hint);
        }
        let endpoints = self.endpoints(&raw.endpoints, &addresses);
        if raw.trusted.len() > MAX_TRUSTED {
            let message = format!("has more than {MAX_TRUSTED} prefixes");
            self.error(
                "tunnels.trusted",
                &message,
                "join neighbours into shorter prefixes",
            );
        }
        Tunnels {
            endpoints,
            trusted: self.prefixes(&raw.trusted, "tunnels.trusted"),
            gue_port: self.port(raw.gue_port, "tunnels.guePort").unwrap_or_default(),
            role: match raw.role {
                RawTunnelRole::Gateway => TunnelRole::Gateway,
                RawTunnelRole::Host => TunnelRole::PlainHost { addresses },
            },
        }
    }

    fn endpoints(&mut self, raw: &[String], virtual_addresses: &[IpAddr]) -> Vec<IpAddr> {
        if raw.is_empty() || raw.len() > MAX_ENDPOINTS {
            let message = format!("must have between 1 and {MAX_ENDPOINTS} addresses");
            let hint = "list the addresses of this node that load balancers send to";
            self.error("tunnels.endpoints", &message, hint);
        }
        let mut seen = HashSet::new();
        let mut endpoints = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let field = format!("tunnels.endpoints[{index}]");
            let Some(address) = self.address(text, &field) else {
                continue;
            };
            if virtual_addresses.contains(&address) {
                let hint = "a tunnel ends at an address of the node's own";
                self.error(&field, "is a virtual address", hint);
            }
            if !seen.insert(address) {
                self.error(&field, "stands twice", "list each address once");
            }
            endpoints.push(address);
        }
        endpoints
    }
}
