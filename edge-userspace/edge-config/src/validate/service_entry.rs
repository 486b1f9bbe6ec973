//! ServiceEntry and WorkloadEntry.

use std::collections::HashSet;
use std::net::IpAddr;

use super::names::{self, Export, is_domain, wildcard_domain_problem};
use super::values;
use crate::checker::Checker;
use crate::istio::service_entry::{Resolution, ServiceEntry, ServicePort};
use crate::istio::workload_entry::WorkloadEntry;

/// Protocols of a service's port, in upper case.
const PROTOCOLS: [&str; 13] = [
    "HTTP",
    "HTTPS",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "REDIS",
    "MYSQL",
    "HTTP_PROXY",
    "HBONE",
];

pub(super) fn check(check: &mut Checker<'_>, entry: &ServiceEntry) {
    hosts(check, entry);
    for (index, address) in entry.addresses.iter().enumerate() {
        let ip = address.split('/').next().unwrap_or_default();
        if ip.parse::<IpAddr>().is_err() {
            let message = format!("{address:?} is not an IP address or subnet");
            check.error(
                &format!("spec.addresses[{index}]"),
                message,
                "write it as 10.1.2.3 or 10.1.0.0/16",
            );
        }
    }
    ports(check, &entry.ports);
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        let message = "workloadSelector and endpoints exclude each other";
        check.error("spec.endpoints", message, "keep one of them");
    }
    if let Some(selector) = &entry.workload_selector {
        names::labels(check, "spec.workloadSelector.labels", &selector.labels);
    }
    endpoints(check, entry);
    let export = Export {
        namespace: "",
        none_allowed: true,
        stays: false,
    };
    names::export_to(check, &entry.export_to, &export);
}

fn hosts(check: &mut Checker<'_>, entry: &ServiceEntry) {
    if entry.hosts.is_empty() {
        check.error(
            "spec.hosts",
            "a ServiceEntry needs at least one host",
            "name the service",
        );
    }
    let by_dns = matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
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
        } else if host.starts_with('*') && by_dns && entry.endpoints.is_empty() {
            let hint = "name one host, or add endpoints";
            check.error(&field, "a wildcard cannot be resolved by DNS", hint);
        }
    }
}

fn ports(check: &mut Checker<'_>, ports: &[ServicePort]) {
    if ports.is_empty() {
        check.warn(
            "spec.ports",
            "without ports no request can be sent there",
            "add a port with number and name",
        );
    }
    let (mut numbers, mut port_names) = (HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        values::port(check, &format!("{path}.number"), port.number);
        if !numbers.insert(port.number) {
            let message = format!("port {} stands twice", port.number);
            check.error(&format!("{path}.number"), message, "keep one of them");
        }
        if port.name.is_empty() {
            check.error(
                &format!("{path}.name"),
                "is missing",
                "name the port, such as http",
            );
        } else if !port_names.insert(&port.name) {
            let message = format!("the name {:?} stands twice", port.name);
            check.error(&format!("{path}.name"), message, "give each port its own name");
        }
        if let Some(target) = port.target_port {
            values::port(check, &format!("{path}.targetPort"), target);
        }
        let protocol = port.protocol.to_ascii_uppercase();
        if !protocol.is_empty() && !PROTOCOLS.contains(&protocol.as_str()) {
            let message = format!("{:?} is not a protocol", port.protocol);
            check.error(
                &format!("{path}.protocol"),
                message,
                format!("one of {}", PROTOCOLS.join(", ")),
            );
        }
    }
}

fn endpoints(check: &mut Checker<'_>, entry: &ServiceEntry) {
    if entry.resolution == Resolution::None && !entry.endpoints.is_empty() {
        let hint = "set resolution: STATIC";
        check.error("spec.endpoints", "cannot be given with resolution NONE", hint);
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        let hint = "keep one, or set resolution: DNS";
        check.error("spec.endpoints", "DNS_ROUND_ROBIN takes one endpoint", hint);
    }
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        workload(check, &path, endpoint);
        let is_ip = endpoint.address.parse::<IpAddr>().is_ok() || endpoint.address.starts_with("unix:");
        if entry.resolution == Resolution::Static && !is_ip && !endpoint.address.is_empty() {
            let message = format!("{:?} is not an IP address", endpoint.address);
            check.error(
                &format!("{path}.address"),
                message,
                "write an IP address, or set resolution: DNS",
            );
        }
        for name in endpoint.ports.keys() {
            if !entry.ports.iter().any(|port| port.name == *name) {
                let message = format!("the service has no port named {name:?}");
                check.error(
                    &format!("{path}.ports.{name}"),
                    message,
                    "use a name from spec.ports",
                );
            }
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
    }
    if let Some(socket) = address.strip_prefix("unix://") {
        if !socket.starts_with(['/', '@']) {
            check.error(
                &field,
                "is not an absolute path",
                "write it as unix:///path/of/socket",
            );
        }
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
        values::port(check, &format!("{path}.ports.{name}"), *port);
    }
    names::labels(check, &format!("{path}.labels"), &entry.labels);
}
