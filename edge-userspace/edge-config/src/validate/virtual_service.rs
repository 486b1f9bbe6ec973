//! VirtualService: hosts, gateways, and the rules for TLS and TCP.

use std::collections::HashMap;

use edge_model::HostPattern;

use super::http_route::{self, Root};
use super::names::{self, Export, is_dns_label, wildcard_domain_problem};
use super::values;
use crate::checker::Checker;
use crate::istio::virtual_service::{
    Destination, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService,
};
use crate::k8s::meta::Meta;

pub(super) fn check(check: &mut Checker<'_>, meta: &Meta, service: &VirtualService) {
    let is_delegate = service.hosts.is_empty();
    if is_delegate {
        delegate(check, service);
    } else {
        hosts(check, service);
    }
    names::gateways(check, "spec.gateways", &service.gateways);
    if service.http.is_empty() && service.tcp.is_empty() && service.tls.is_empty() {
        check.error(
            "spec",
            "none of http, tls and tcp is there",
            "add a rule under http",
        );
    }
    let root = Root {
        is_delegate,
        at_gateway: !service.gateways.is_empty() && !is_in_mesh(service),
    };
    for (index, route) in service.http.iter().enumerate() {
        http_route::check(check, &format!("spec.http[{index}]"), route, root);
    }
    http_route::unreachable(check, &service.http);
    for (index, route) in service.tls.iter().enumerate() {
        tls_route(check, &format!("spec.tls[{index}]"), route, &service.hosts);
    }
    for (index, route) in service.tcp.iter().enumerate() {
        tcp_route(check, &format!("spec.tcp[{index}]"), route);
    }
    let export = Export {
        namespace: &meta.namespace,
        none_allowed: false,
        stays: false,
    };
    names::export_to(check, &service.export_to, &export);
}

/// Without hosts it is a delegate, which takes both from the VirtualService that names it.
fn delegate(check: &mut Checker<'_>, service: &VirtualService) {
    if !service.gateways.is_empty() {
        let hint = "add hosts, or remove gateways for a delegate";
        check.error(
            "spec.gateways",
            "a VirtualService without hosts is a delegate and has no gateways",
            hint,
        );
    }
    if !service.tcp.is_empty() || !service.tls.is_empty() {
        let hint = "add hosts, or keep only http for a delegate";
        check.error(
            "spec",
            "a VirtualService without hosts is a delegate and has only http rules",
            hint,
        );
    }
}

fn is_in_mesh(service: &VirtualService) -> bool {
    service.gateways.is_empty() || service.gateways.iter().any(|gateway| gateway == "mesh")
}

fn hosts(check: &mut Checker<'_>, service: &VirtualService) {
    let in_mesh = is_in_mesh(service);
    let all = Hosts::new(&service.hosts);
    for (index, host) in service.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        names::host(check, &field, host);
        if let Some(other) = all.covering(index, host) {
            let message = format!("host {host:?} overlaps with spec.hosts[{other}]");
            check.error(&field, message, "keep the wider one of them");
        }
        if in_mesh && host == "*" {
            let hint = "name a Gateway under spec.gateways, without mesh";
            check.error(&field, "host * is not possible for the mesh gateway", hint);
        }
    }
}

/// The hosts of a VirtualService, so that those which another one covers are found without comparing each with each
/// (istio `host.Name`, `Matches`: a wildcard covers whatever ends as it does).
struct Hosts<'a> {
    /// The first place of each exact host.
    exact: HashMap<&'a str, usize>,
    /// The first place of each wildcard, without its star.
    wildcards: HashMap<&'a str, usize>,
}

impl<'a> Hosts<'a> {
    fn new(hosts: &'a [String]) -> Self {
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for (index, host) in hosts.iter().enumerate() {
            match host.strip_prefix('*') {
                Some(ending) => wildcards.entry(ending).or_insert(index),
                None => exact.entry(host.as_str()).or_insert(index),
            };
        }
        Self { exact, wildcards }
    }

    /// The place of another host that covers the one at `index`.
    fn covering(&self, index: usize, host: &str) -> Option<usize> {
        let is_other = |place: &usize| *place != index;
        let name = host.strip_prefix('*').unwrap_or(host);
        // Longer texts are no hosts, and are told so.
        if name.len() > HostPattern::MAX_LEN {
            return None;
        }
        let same = self.exact.get(host).copied().filter(is_other);
        let endings = (0..=name.len()).filter_map(|at| name.get(at..));
        let mut wildcards = endings.filter_map(|ending| self.wildcards.get(ending).copied());
        same.or_else(|| wildcards.find(is_other))
    }
}

fn tls_route(check: &mut Checker<'_>, path: &str, route: &TlsRoute, hosts: &[String]) {
    if route.r#match.is_empty() {
        let hint = "add a match with sniHosts";
        check.error(
            &format!("{path}.match"),
            "a TLS rule needs at least one match",
            hint,
        );
    }
    for (index, block) in route.r#match.iter().enumerate() {
        tls_match(check, &format!("{path}.match[{index}]"), block, hosts);
    }
    route_destinations(check, &format!("{path}.route"), &route.route);
}

fn tls_match(check: &mut Checker<'_>, path: &str, block: &TlsMatchAttributes, hosts: &[String]) {
    if block.sni_hosts.is_empty() {
        let hint = "name the server names that the rule is for";
        check.error(
            &format!("{path}.sniHosts"),
            "at least one SNI host is needed",
            hint,
        );
    }
    for (index, sni) in block.sni_hosts.iter().enumerate() {
        sni_host(check, &format!("{path}.sniHosts[{index}]"), sni, hosts);
    }
    l4_match(
        check,
        path,
        &block.destination_subnets,
        block.port,
        &block.gateways,
    );
    names::labels(check, &format!("{path}.sourceLabels"), &block.source_labels);
}

fn sni_host(check: &mut Checker<'_>, field: &str, sni: &str, hosts: &[String]) {
    if sni.parse::<std::net::IpAddr>().is_ok() {
        let hint = "write a name: most clients send no SNI for an address (RFC 6066, 3)";
        return check.warn(field, format!("{sni} is an IP address"), hint);
    }
    if let Some(problem) = wildcard_domain_problem(sni) {
        let hint = "write a name such as www.example.com or *.example.com";
        return check.error(field, format!("SNI host {sni:?} {problem}"), hint);
    }
    if names::is_partial_wildcard(sni) {
        // Envoy refuses such a filter chain, with the whole listener.
        let hint = "write *. before whole labels";
        check.warn(
            field,
            format!("{sni} is ignored: TLS knows no wildcards for a part of a label"),
            hint,
        );
    }
    let within = |host: &String| match (HostPattern::parse(sni), HostPattern::parse(host)) {
        (Ok(sni), Ok(host)) => sni.is_subset_of(&host),
        _ => sni == host,
    };
    if !hosts.iter().any(within) {
        let message = format!("SNI host {sni} is not one of the VirtualService's hosts");
        check.error(field, message, format!("the hosts are {}", hosts.join(", ")));
    }
}

fn tcp_route(check: &mut Checker<'_>, path: &str, route: &TcpRoute) {
    for (index, block) in route.r#match.iter().enumerate() {
        let path = format!("{path}.match[{index}]");
        let L4MatchAttributes {
            destination_subnets,
            port,
            source_labels,
            gateways,
            // Istio's webhook looks at neither.
            source_subnet: _,
            source_namespace: _,
        } = block;
        l4_match(check, &path, destination_subnets, *port, gateways);
        names::labels(check, &format!("{path}.sourceLabels"), source_labels);
    }
    route_destinations(check, &format!("{path}.route"), &route.route);
}

fn l4_match(check: &mut Checker<'_>, path: &str, subnets: &[String], port: Option<u32>, gateways: &[String]) {
    for (index, text) in subnets.iter().enumerate() {
        subnet(check, &format!("{path}.destinationSubnets[{index}]"), text);
    }
    // 0 stands for every port.
    if let Some(port) = port.filter(|port| *port != 0) {
        values::port(check, &format!("{path}.port"), port);
    }
    names::gateways(check, &format!("{path}.gateways"), gateways);
}

fn subnet(check: &mut Checker<'_>, field: &str, text: &str) {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let address: Option<std::net::IpAddr> = address.parse().ok();
    let most = if address.is_some_and(|address| address.is_ipv6()) {
        128
    } else {
        32
    };
    if address.is_none() || !length.parse::<u8>().is_ok_and(|length| length <= most) {
        check.error(
            field,
            format!("{text:?} is not an IP address or subnet"),
            "write it as 10.0.0.0/8",
        );
    }
}

/// `sourceNamespace` of a rule for HTTP.
pub(super) fn source_namespace(check: &mut Checker<'_>, path: &str, namespace: &str) {
    if !namespace.is_empty() && !is_dns_label(namespace) {
        let message = format!("{namespace:?} is not a namespace");
        check.error(
            &format!("{path}.sourceNamespace"),
            message,
            "write the name of a namespace",
        );
    }
}

fn route_destinations(check: &mut Checker<'_>, path: &str, route: &[RouteDestination]) {
    if route.is_empty() {
        check.error(
            path,
            "the rule has no destination",
            "add a destination with host and port",
        );
    }
    for (index, destination) in route.iter().enumerate() {
        self::destination(
            check,
            &format!("{path}[{index}].destination"),
            destination.destination.as_ref(),
        );
    }
    let weights = route.iter().map(|destination| destination.weight);
    self::weights(check, path, weights);
}

/// A destination, which must be there.
pub(super) fn destination(check: &mut Checker<'_>, path: &str, destination: Option<&Destination>) {
    let Some(destination) = destination else {
        return check.error(path, "is missing", "add destination with host and port");
    };
    let host = format!("{path}.host");
    match destination.host.as_str() {
        "*" => check.error(&host, "a request cannot go to every host", "name one service"),
        "" => check.error(&host, "is missing", "name the service that requests go to"),
        text => names::host(check, &host, text),
    }
    if !destination.subset.is_empty() && !is_dns_label(&destination.subset) {
        let message = format!("{:?} is not the name of a subset", destination.subset);
        check.error(
            &format!("{path}.subset"),
            message,
            "use letters, digits and dashes",
        );
    }
    values::port_selector(check, &format!("{path}.port"), destination.port);
}

/// Weights of the destinations of one rule.
pub(super) fn weights(check: &mut Checker<'_>, path: &str, weights: impl ExactSizeIterator<Item = i32>) {
    let several = weights.len() > 1;
    let mut sum = 0_i64;
    for (index, weight) in weights.enumerate() {
        if weight < 0 {
            let hint = "weights are shares relative to each other, from 0 up";
            check.error(
                &format!("{path}[{index}].weight"),
                format!("weight {weight} is negative"),
                hint,
            );
        }
        sum += i64::from(weight);
    }
    if several && sum == 0 {
        let hint = "give at least one destination a weight above 0";
        check.error(path, "the weights of the destinations sum to 0", hint);
    }
}
