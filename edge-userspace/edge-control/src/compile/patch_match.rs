//! Whether an EnvoyFilter's patch is for a listener, route table, virtual host or route. Names are compared as text,
//! wildcards have no meaning in them (istio `pilot/pkg/networking/core/envoyfilter`).

use std::sync::Arc;

use edge_config::istio::envoy_filter::rate_limit::PatchTarget;
use edge_config::istio::envoy_filter::{
    FilterChainMatch, ListenerMatch, RouteActionMatch, RouteConfigurationMatch, RouteMatch, VirtualHostMatch,
};
use edge_model::{HostPattern, Route, RouteAction, VirtualHost, VirtualHosts};

use super::gateways::{BoundServer, Socket};
use super::listener_name;

/// Name of the network filter that HTTP filters are part of.
const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// A route table and the servers that it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'s, 'r> {
    /// Name of the table.
    pub(crate) table: &'s str,
    /// What is listened on.
    pub(crate) socket: Socket,
    pub(crate) is_tls: bool,
    pub(crate) servers: &'s [BoundServer<'r>],
}

pub(crate) fn matches_listener(target: &PatchTarget, scope: &Scope<'_, '_>) -> bool {
    let PatchTarget::Listener(wanted) = target else {
        return false;
    };
    let ListenerMatch {
        port_number,
        port_name: _, // Istio does not implement it.
        filter_chain,
        listener_filter,
        name,
    } = wanted;
    is_port(*port_number, scope)
        && is_text(name, &listener_name(scope.socket))
        && listener_filter.is_empty()
        && filter_chain
            .as_ref()
            .is_none_or(|chain| matches_chain(chain, scope))
}

fn matches_chain(wanted: &FilterChainMatch, scope: &Scope<'_, '_>) -> bool {
    let serves = |sni: &str| {
        let hosts = scope.servers.iter().flat_map(|server| server.hosts.iter());
        scope.is_tls && hosts.into_iter().any(|host| host.name.to_string() == sni)
    };
    let transport = if scope.is_tls { "tls" } else { "raw_buffer" };
    let filter = wanted.filter.as_ref().map_or("", |filter| filter.name.as_str());
    // The edge's chains have no names.
    wanted.name.is_empty()
        && (wanted.sni.is_empty() || serves(&wanted.sni))
        && is_text(&wanted.transport_protocol, transport)
        && is_text(filter, HTTP_CONNECTION_MANAGER)
        && is_port(wanted.destination_port, scope)
}

pub(crate) fn matches_table(target: &PatchTarget, scope: &Scope<'_, '_>) -> bool {
    matches!(target, PatchTarget::RouteConfiguration(wanted) if is_table(wanted, scope))
}

pub(crate) fn matches_virtual_host(target: &PatchTarget, scope: &Scope<'_, '_>, host: &VirtualHost) -> bool {
    matches!(target, PatchTarget::VirtualHost(wanted) if is_table(wanted, scope) && is_host(wanted, host))
}

pub(crate) fn matches_route(
    target: &PatchTarget,
    scope: &Scope<'_, '_>,
    host: &VirtualHost,
    route: &Route,
) -> bool {
    let PatchTarget::Route(wanted) = target else {
        return false;
    };
    let wanted_route = wanted.vhost.as_ref().and_then(|host| host.route.as_ref());
    is_table(wanted, scope)
        && is_host(wanted, host)
        && wanted_route.is_none_or(|wanted| is_route(wanted, route))
}

/// Whether a patch is for a table, or for one of its virtual hosts or their routes.
pub(crate) fn matches_within(target: &PatchTarget, scope: &Scope<'_, '_>, hosts: &VirtualHosts) -> bool {
    match target {
        PatchTarget::Listener(_) => false,
        PatchTarget::RouteConfiguration(_) => matches_table(target, scope),
        PatchTarget::VirtualHost(wanted) => {
            candidates(wanted, hosts).any(|host| matches_virtual_host(target, scope, host))
        }
        PatchTarget::Route(wanted) => candidates(wanted, hosts).any(|host| {
            let mut routes = host.routes.iter();
            routes.any(|route| matches_route(target, scope, host, route))
        }),
    }
}

/// The virtual hosts that a match can be for.
fn candidates<'h>(
    wanted: &RouteConfigurationMatch,
    hosts: &'h VirtualHosts,
) -> Box<dyn Iterator<Item = &'h Arc<VirtualHost>> + 'h> {
    match domains(wanted) {
        Some(domains) => Box::new(domains.into_iter().filter_map(|domain| hosts.get(&domain))),
        None => Box::new(hosts.iter()),
    }
}

/// The domains of the virtual hosts that a match can be for; `None` when these may be any.
pub(crate) fn domains(wanted: &RouteConfigurationMatch) -> Option<Vec<HostPattern>> {
    let VirtualHostMatch {
        name, domain_name, ..
    } = wanted.vhost.as_ref()?;
    if !domain_name.is_empty() {
        return Some(HostPattern::parse(domain_name).into_iter().collect());
    }
    // A virtual host is called `<domain>:<port>`; that of a table without any is for all domains, and is called otherwise.
    let domain = name.rsplit_once(':').map_or(name.as_str(), |(domain, _)| domain);
    let named = HostPattern::parse(domain).into_iter();
    (!name.is_empty()).then(|| named.chain([HostPattern::Any]).collect())
}

/// Port, port name and Gateway must be those of one server of the table.
fn is_table(wanted: &RouteConfigurationMatch, scope: &Scope<'_, '_>) -> bool {
    let is_server = |server: &BoundServer<'_>| {
        let port_name = server.server.port.as_ref().map_or("", |port| port.name.as_str());
        let number = wanted.port_number;
        let is_port = [0, u32::from(scope.socket.port), u32::from(server.declared_port)].contains(&number);
        let is_gateway = || wanted.gateway.is_empty() || wanted.gateway == server.gateway_key();
        is_port && is_text(&wanted.port_name, port_name) && is_gateway()
    };
    is_text(&wanted.name, scope.table) && scope.servers.iter().any(is_server)
}

fn is_host(wanted: &RouteConfigurationMatch, host: &VirtualHost) -> bool {
    wanted.vhost.as_ref().is_none_or(
        |VirtualHostMatch {
             name, domain_name, ..
         }| {
            let is_domain = || domain_name.is_empty() || *domain_name == host.domain.to_string();
            is_text(name, &host.name) && is_domain()
        },
    )
}

fn is_route(wanted: &RouteMatch, route: &Route) -> bool {
    let is_action = match wanted.action {
        RouteActionMatch::Any => true,
        RouteActionMatch::Route => matches!(route.action, RouteAction::Forward(_)),
        RouteActionMatch::Redirect => matches!(route.action, RouteAction::Redirect(_)),
        RouteActionMatch::DirectResponse => matches!(route.action, RouteAction::DirectResponse(_)),
    };
    is_action && is_text(&wanted.name, &route.name)
}

fn is_port(wanted: u32, scope: &Scope<'_, '_>) -> bool {
    let declared = scope.servers.iter().map(|server| u32::from(server.declared_port));
    wanted == 0 || wanted == u32::from(scope.socket.port) || declared.into_iter().any(|port| port == wanted)
}

/// An empty text is no condition.
fn is_text(wanted: &str, actual: &str) -> bool {
    wanted.is_empty() || wanted == actual
}
