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
        let (endpoints, relays) = self.endpoints(raw, &addresses);
        if !relays.is_empty() && raw.role == RawTunnelRole::Host {
            let hint = "a host has no pools; leave its addresses to endpoints";
            self.error("tunnels.relays", "needs the role gateway", hint);
        }
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
            relays,
            trusted: self.prefixes(&raw.trusted, "tunnels.trusted"),
            gue_port: self.port(raw.gue_port, "tunnels.guePort").unwrap_or_default(),
            role: match raw.role {
                RawTunnelRole::Gateway => TunnelRole::Gateway,
                RawTunnelRole::Host => TunnelRole::PlainHost { addresses },
            },
        }
    }

    /// The addresses that tunnels end at: those for this node, and the relays.
    fn endpoints(&mut self, raw: &RawTunnels, virtual_addresses: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let count = raw.endpoints.len() + raw.relays.len();
        if !(1..=MAX_ENDPOINTS).contains(&count) {
            let message = format!("must have between 1 and {MAX_ENDPOINTS} addresses, relays among them");
            let hint = "list the addresses of this node that load balancers send to";
            self.error("tunnels.endpoints", &message, hint);
        }
        let mut seen = HashSet::new();
        let mut check = |list: &[String], name: &str| {
            let mut endpoints = Vec::new();
            for (index, text) in list.iter().enumerate() {
                let field = format!("tunnels.{name}[{index}]");
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
        };
        (check(&raw.endpoints, "endpoints"), check(&raw.relays, "relays"))
    }
}
