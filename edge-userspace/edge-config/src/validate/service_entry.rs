//! ServiceEntry and WorkloadEntry.

use std::collections::HashSet;
use std::net::IpAddr;

use super::names::{self, Export, is_dns_label, is_domain, wildcard_domain_problem};
use super::values;
use crate::checker::Checker;
use crate::istio::service_entry::{LabelSelector, Location, Resolution, ServiceEntry, ServicePort};
use crate::istio::workload_entry::WorkloadEntry;
use crate::k8s::meta::Meta;

pub(super) fn check(check: &mut Checker<'_>, meta: &Meta, entry: &ServiceEntry) {
    hosts(check, entry);
    addresses(check, entry);
    ports(check, entry);
    if entry.endpoint_count() > ServiceEntry::MAX_ENDPOINTS {
        let message = format!(
            "its hosts, ports and endpoints make {} endpoints together, more than {}",
            entry.endpoint_count(),
            ServiceEntry::MAX_ENDPOINTS
        );
        check.error("spec", message, "make several ServiceEntries of it");
    }
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        let message = "workloadSelector and endpoints exclude each other";
        check.error("spec.endpoints", message, "keep one of them");
    }
    if let Some(selector) = &entry.workload_selector {
        workload_selector(check, entry.resolution, selector);
    }
    match entry.resolution {
        Resolution::None if !entry.endpoints.is_empty() => {
            let hint = "set resolution: STATIC";
            check.error("spec.endpoints", "cannot be given with resolution NONE", hint);
        }
        Resolution::None => {}
        Resolution::DynamicDns => dynamic_dns(check, meta, entry),
        Resolution::Static | Resolution::Dns | Resolution::DnsRoundRobin => endpoints(check, entry),
    }
    let export = Export {
        namespace: &meta.namespace,
        none_allowed: true,
        stays: false,
    };
    names::export_to(check, &entry.export_to, &export);
}

fn workload_selector(check: &mut Checker<'_>, resolution: Resolution, selector: &LabelSelector) {
    let path = "spec.workloadSelector";
    if selector.labels.is_empty() {
        let hint = "name labels, or remove workloadSelector";
        check.warn(
            path,
            "without labels it selects all workloads of the namespace",
            hint,
        );
    }
    for (key, value) in &selector.labels {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let message = format!("{key}: {value} is not a label");
            check.error(&format!("{path}.labels"), message, "name labels in full");
        }
    }
    if resolution == Resolution::None {
        check.warn(
            path,
            "has no effect with resolution NONE",
            "set resolution: STATIC",
        );
    }
}

fn by_dns(entry: &ServiceEntry) -> bool {
    matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
}

fn hosts(check: &mut Checker<'_>, entry: &ServiceEntry) {
    if entry.hosts.is_empty() {
        check.error(
            "spec.hosts",
            "a ServiceEntry needs at least one host",
            "name the service",
        );
    }
    for (index, host) in entry.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host == "*" {
            check.error(
                &field,
                "the full wildcard is not possible",
                "name a domain, such as *.example.com",
            );
        } else if let Some(problem) = wildcard_domain_problem(host) {
            let hint = "write a name such as api.example.com";
            check.error(&field, format!("host {host:?} {problem}"), hint);
        } else if host.starts_with('*') && by_dns(entry) && entry.endpoints.is_empty() {
            let hint = "name one host, or add endpoints";
            check.error(&field, "a wildcard cannot be resolved by DNS", hint);
        } else if names::is_partial_wildcard(host) && entry.resolution != Resolution::DynamicDns {
            let message = format!("host {host:?} has a wildcard for a part of a label");
            check.warn(&field, message, "write *. before whole labels");
        }
    }
}

fn addresses(check: &mut Checker<'_>, entry: &ServiceEntry) {
    let takes_blocks = matches!(entry.resolution, Resolution::None | Resolution::Static);
    for (index, address) in entry.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        if !super::security::is_block(address) {
            let message = format!("{address:?} is not an IP address or subnet");
            check.error(&field, message, "write it as 10.1.2.3 or 10.1.0.0/16");
        } else if address.contains('/') && !takes_blocks {
            let hint = "write single addresses, or set resolution: STATIC";
            check.error(
                &field,
                "subnets are possible only with resolution NONE and STATIC",
                hint,
            );
        }
    }
}

fn ports(check: &mut Checker<'_>, entry: &ServiceEntry) {
    if entry.ports.is_empty() {
        check.warn(
            "spec.ports",
            "without ports no request can be sent there",
            "add a port with number and name",
        );
    }
    let (mut numbers, mut port_names) = (HashSet::new(), HashSet::new());
    for (index, port) in entry.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        values::port(check, &format!("{path}.number"), port.number);
        if !numbers.insert(port.number) {
            let message = format!("port {} stands twice", port.number);
            check.error(&format!("{path}.number"), message, "keep one of them");
        }
        port_name(check, &format!("{path}.name"), &port.name);
        if !port.name.is_empty() && !port_names.insert(&port.name) {
            let message = format!("the name {:?} stands twice", port.name);
            check.error(&format!("{path}.name"), message, "give each port its own name");
        }
        // 0 stands for the number itself.
        if let Some(target) = port.target_port.filter(|target| *target != 0) {
            values::port(check, &format!("{path}.targetPort"), target);
        }
        protocol(check, &format!("{path}.protocol"), entry, port);
    }
}

fn port_name(check: &mut Checker<'_>, field: &str, name: &str) {
    if name.is_empty() {
        check.error(field, "is missing", "name the port, such as http");
    } else if !is_dns_label(name) {
        let message = format!("{name:?} is not the name of a port");
        check.error(field, message, "use letters, digits and dashes");
    }
}

fn protocol(check: &mut Checker<'_>, field: &str, entry: &ServiceEntry, port: &ServicePort) {
    let protocol = port.protocol.to_ascii_uppercase();
    if !protocol.is_empty() && !values::PROTOCOLS.contains(&protocol.as_str()) {
        let message = format!("{:?} is not a protocol", port.protocol);
        return check.error(field, message, format!("one of {}", values::PROTOCOLS.join(", ")));
    }
    let by_host = matches!(
        protocol.as_str(),
        "HTTP" | "HTTP2" | "HTTP_PROXY" | "GRPC" | "GRPC-WEB" | "HTTPS" | "TLS"
    );
    if entry.hosts.len() > 1 && entry.resolution != Resolution::None && !by_host {
        let message = "with several hosts, only protocols that name the host are possible";
        check.error(
            field,
            message,
            "write HTTP or TLS, or make a ServiceEntry for each host",
        );
    }
}

/// Addresses come from the name that a request asks for.
fn dynamic_dns(check: &mut Checker<'_>, meta: &Meta, entry: &ServiceEntry) {
    let hint = "remove it, or set another resolution";
    for (index, host) in entry
        .hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| !host.starts_with('*'))
    {
        let message = format!("host {host:?} is no wildcard, which DYNAMIC_DNS is for");
        check.error(&format!("spec.hosts[{index}]"), message, "set resolution: DNS");
    }
    if !entry.addresses.is_empty() {
        check.error("spec.addresses", "cannot be given with DYNAMIC_DNS", hint);
    }
    if !entry.endpoints.is_empty() {
        check.error("spec.endpoints", "cannot be given with DYNAMIC_DNS", hint);
    }
    for (index, port) in entry.ports.iter().enumerate() {
        let protocol = port.protocol.to_ascii_uppercase();
        if !matches!(protocol.as_str(), "HTTP" | "TLS" | "GRPC" | "HTTP2") {
            let field = format!("spec.ports[{index}].protocol");
            check.error(
                &field,
                "DYNAMIC_DNS takes HTTP, TLS, GRPC and HTTP2",
                "write one of them",
            );
        }
    }
    let waypoint = meta.labels.get("istio.io/use-waypoint");
    let uses_waypoint = waypoint.is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    if entry.location == Location::MeshInternal && uses_waypoint {
        let message = "MESH_INTERNAL with DYNAMIC_DNS cannot go through a waypoint";
        check.error("spec.location", message, "write MESH_EXTERNAL");
    }
}

fn endpoints(check: &mut Checker<'_>, entry: &ServiceEntry) {
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        let hint = "keep one, or set resolution: DNS";
        check.error("spec.endpoints", "DNS_ROUND_ROBIN takes one endpoint", hint);
    }
    let port_names: HashSet<&str> = entry.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        workload(check, &path, endpoint);
        let field = format!("{path}.address");
        let address = endpoint.address.as_str();
        let is_socket = address.starts_with("unix://");
        if entry.resolution == Resolution::Static && !address.is_empty() {
            if !is_socket && address.parse::<IpAddr>().is_err() {
                let message = format!("{address:?} is not an IP address");
                check.error(&field, message, "write an IP address, or set resolution: DNS");
            } else if is_socket && entry.ports.len() != 1 {
                let message = "a unix domain socket stands for exactly one port of the service";
                check.error(&field, message, "keep one of spec.ports");
            }
        } else if is_socket {
            check.error(
                &field,
                "DNS finds no unix domain sockets",
                "set resolution: STATIC",
            );
        }
        for name in endpoint
            .ports
            .keys()
            .filter(|name| !port_names.contains(name.as_str()))
        {
            let message = format!("the service has no port named {name:?}");
            check.error(
                &format!("{path}.ports.{name}"),
                message,
                "use a name from spec.ports",
            );
        }
    }
}

/// A WorkloadEntry by itself.
pub(super) fn check_workload(check: &mut Checker<'_>, entry: &WorkloadEntry) {
    workload(check, "spec", entry);
}

fn workload(check: &mut Checker<'_>, path: &str, entry: &WorkloadEntry) {
    let address = entry.address.as_str();
    let field = format!("{path}.address");
    if address.is_empty() && entry.network.is_empty() {
        check.error(&field, "is missing", "write the IP address of the workload");
    } else if address.is_empty() {
        let hint = "write the IP address of the workload";
        check.warn(
            &field,
            "is missing: requests would have to go through another network",
            hint,
        );
    }
    if let Some(socket) = address.strip_prefix("unix://") {
        values::socket_path(check, &field, socket);
        if !entry.ports.is_empty() {
            check.error(
                &format!("{path}.ports"),
                "a unix domain socket has no ports",
                "remove them",
            );
        }
    } else if !address.is_empty() && address.parse::<IpAddr>().is_err() && !is_domain(address) {
        let message = format!("{address:?} is neither an IP address nor a DNS name");
        check.error(&field, message, "write an address such as 192.0.2.7");
    }
    for (name, port) in &entry.ports {
        let field = format!("{path}.ports.{name}");
        port_name(check, &field, name);
        values::port(check, &field, *port);
    }
    names::labels(check, &format!("{path}.labels"), &entry.labels);
}
