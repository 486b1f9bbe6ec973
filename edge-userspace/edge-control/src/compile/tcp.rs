//! `tcp` and `tls` rules: at a gateway only their ports, gateways and server names count (istio `l4SingleMatch`).

use std::collections::HashSet;
use std::sync::Arc;

use edge_config::istio::virtual_service::{
    L4MatchAttributes, RouteDestination, TlsMatchAttributes, VirtualService,
};
use edge_model::{HostPattern, ObjectRef, TcpRoute, TlsServer, TlsService, WeightedCluster};

use super::action::{Place, cluster_name};
use super::context::Context;
use super::gateways::BoundServer;
use super::input::Item;
use super::names::gateway_key;
use super::report::Report;
use super::tables::Binding;

/// Where the connections of a server go whose bytes are forwarded: by the first `tcp` rule, of the first VirtualService
/// that has one for it (istio `buildGatewayNetworkFiltersFromTCPRoutes`).
pub(crate) fn tcp_route(
    server: &BoundServer<'_>,
    binding: &Binding<'_>,
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<Arc<TcpRoute>> {
    for object in binding.of_server(server) {
        for (index, rule) in object.spec.tcp.iter().enumerate() {
            let applies = rule.r#match.is_empty()
                || rule.r#match.iter().any(|block: &L4MatchAttributes| {
                    is_for(server, block.port, &block.gateways, object.namespace())
                });
            if applies {
                let field = format!("spec.tcp[{index}]");
                return route(object, server, (index, &field), &rule.route, context, report).map(Arc::new);
            }
        }
    }
    let message = "no tcp rule of any VirtualService is for the server, its connections are closed";
    let hint = "bind a VirtualService with tcp to the Gateway, with a host of the server";
    report.warn(&server.gateway, server.field(), message, hint);
    None
}

/// The server names of a server whose TLS passes through, by the `tls` rules for it (istio
/// `buildGatewayNetworkFiltersFromTLSRoutes`). `taken` are the names that other servers of the port have; a block with
/// one of them is left out as a whole.
pub(crate) fn passthrough(
    server: &BoundServer<'_>,
    binding: &Binding<'_>,
    context: &Context<'_, '_>,
    taken: &mut HashSet<HostPattern>,
    report: &mut Report,
) -> Vec<Arc<TlsServer>> {
    let mut servers = vec![];
    for object in binding.of_server(server) {
        for (index, rule) in object.spec.tls.iter().enumerate() {
            for (number, block) in rule.r#match.iter().enumerate() {
                if !is_for(server, block.port, &block.gateways, object.namespace()) {
                    continue;
                }
                let field = format!("spec.tls[{index}]");
                let place = format!("{field}.match[{number}].sniHosts");
                let Some(hosts) = sni_hosts(object, &place, block, taken, report) else {
                    continue;
                };
                let Some(route) = route(object, server, (index, &field), &rule.route, context, report) else {
                    continue;
                };
                taken.extend(hosts.iter().cloned());
                servers.push(Arc::new(TlsServer {
                    gateway: ObjectRef::clone(&server.gateway.name),
                    hosts,
                    service: TlsService::Passthrough {
                        route: Arc::new(route),
                    },
                }));
            }
        }
    }
    servers
}

fn sni_hosts(
    object: &Item<'_, VirtualService>,
    field: &str,
    block: &TlsMatchAttributes,
    taken: &HashSet<HostPattern>,
    report: &mut Report,
) -> Option<Vec<HostPattern>> {
    let mut hosts = vec![];
    for text in &block.sni_hosts {
        match HostPattern::parse(text) {
            Ok(host) if taken.contains(&host) => {
                let message =
                    format!("{host} is served by an earlier rule of the port, this block is left out");
                report.warn(object, field, message, "name each server name once");
                return None;
            }
            // Envoy knows none such for server names. The VirtualService's own check says so.
            Ok(host) if host.is_partial() => {}
            Ok(host) => hosts.push(host),
            Err(error) => report.error(object, field, format!("{text}: {error}"), "write a host name"),
        }
    }
    hosts.sort();
    hosts.dedup();
    Some(hosts).filter(|hosts| !hosts.is_empty())
}

fn is_for(server: &BoundServer<'_>, port: Option<u32>, gateways: &[String], namespace: &str) -> bool {
    let is_port = port.is_none_or(|port| port == 0 || port == u32::from(server.declared_port));
    let key = server.gateway_key();
    is_port && (gateways.is_empty() || gateways.iter().any(|name| gateway_key(name, namespace) == key))
}

fn route(
    object: &Item<'_, VirtualService>,
    server: &BoundServer<'_>,
    (rule, field): (usize, &str),
    destinations: &[RouteDestination],
    context: &Context<'_, '_>,
    report: &mut Report,
) -> Option<TcpRoute> {
    let place = Place {
        object,
        port: server.declared_port,
    };
    let is_single = destinations.len() == 1;
    let clusters = destinations
        .iter()
        .enumerate()
        .filter_map(|(index, destination)| {
            let field = format!("{field}.route[{index}].destination");
            let named = destination.destination.as_ref()?;
            Some(WeightedCluster {
                cluster: cluster_name(&place, &field, named, context, report)?,
                weight: if is_single {
                    100
                } else {
                    u32::try_from(destination.weight).unwrap_or(0)
                },
            })
        });
    let clusters: Vec<_> = clusters.filter(|cluster| cluster.weight != 0).collect();
    if clusters.is_empty() {
        let message = "no destination has a weight, nothing can be forwarded";
        report.error(
            object,
            format!("{field}.route"),
            message,
            "name a destination with a weight",
        );
        return None;
    }
    Some(TcpRoute {
        object: Arc::clone(&object.name),
        rule,
        destinations: clusters,
    })
}
