//! Gateway: servers, ports and hosts.

use std::collections::HashSet;
use std::net::IpAddr;

use super::names::{self, is_dns_label, wildcard_domain_problem};
use super::{server_tls, values};
use crate::checker::Checker;
use crate::istio::gateway::{Gateway, Port, Server};
use crate::k8s::meta::Meta;

/// Beginning of a `bind` that names a unix domain socket.
const UNIX: &str = "unix://";

pub(super) fn check(check: &mut Checker<'_>, meta: &Meta, gateway: &Gateway) {
    if !is_dns_label(&meta.name) {
        let hint = "use letters, digits and dashes: the name becomes part of listener names";
        check.error("metadata.name", "the name of a Gateway must be a DNS label", hint);
    }
    names::labels(check, "spec.selector", &gateway.selector);
    if gateway.servers.is_empty() {
        check.error(
            "spec.servers",
            "a Gateway needs at least one server",
            "add a server with port and hosts",
        );
    }
    let (mut port_names, mut server_names) = (HashSet::new(), HashSet::new());
    for (index, server) in gateway.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        self::server(check, &path, server);
        let port_name = server.port.as_ref().map_or("", |port| &port.name);
        if !port_name.is_empty() && !port_names.insert(port_name) {
            let message = format!("the port name {port_name:?} stands twice in the Gateway");
            check.error(
                &format!("{path}.port.name"),
                message,
                "give each server's port its own name",
            );
        }
        if !server.name.is_empty() && !server_names.insert(&server.name) {
            let message = format!("the server name {:?} stands twice in the Gateway", server.name);
            check.warn(&format!("{path}.name"), message, "their statistics will be mixed");
        }
    }
}

fn server(check: &mut Checker<'_>, path: &str, server: &Server) {
    if server.hosts.is_empty() {
        let hint = "name the hosts that are served, or \"*\" for all";
        check.error(&format!("{path}.hosts"), "a server needs at least one host", hint);
    }
    for (index, host) in server.hosts.iter().enumerate() {
        server_host(check, &format!("{path}.hosts[{index}]"), host);
    }
    bind(check, path, server);
    match &server.port {
        None => check.error(
            &format!("{path}.port"),
            "is missing",
            "add number, name and protocol",
        ),
        Some(port) => self::port(
            check,
            &format!("{path}.port"),
            port,
            server.bind.starts_with(UNIX),
        ),
    }
    if let Some(port) = &server.port {
        server_tls::check(
            check,
            path,
            &port.protocol.to_ascii_uppercase(),
            server.tls.as_ref(),
        );
    }
}

fn port(check: &mut Checker<'_>, path: &str, port: &Port, unix: bool) {
    // Port 0 is the mark of a unix domain socket.
    if !(unix && port.number == 0) {
        values::port(check, &format!("{path}.number"), port.number);
    }
    if unix && port.number != 0 {
        let hint = "write number: 0";
        check.error(
            &format!("{path}.number"),
            "a unix domain socket has no port",
            hint,
        );
    }
    if !values::PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
        let message = format!("{:?} is not a protocol", port.protocol);
        check.error(
            &format!("{path}.protocol"),
            message,
            format!("one of {}", values::PROTOCOLS.join(", ")),
        );
    }
    if port.name.is_empty() {
        check.error(
            &format!("{path}.name"),
            "is missing",
            "name the port, such as http",
        );
    }
    if port.target_port.is_some_and(|target| target != 0) {
        let hint = "remove it; the Service of the gateway has the target port";
        check.error(&format!("{path}.targetPort"), "has no effect on a Gateway", hint);
    }
}

fn bind(check: &mut Checker<'_>, path: &str, server: &Server) {
    let bind = server.bind.as_str();
    if let Some(socket) = bind.strip_prefix(UNIX) {
        values::socket_path(check, &format!("{path}.bind"), socket);
    } else if !bind.is_empty() && bind.parse::<IpAddr>().is_err() {
        let hint = "write an IP address, or leave it out for all addresses";
        check.error(
            &format!("{path}.bind"),
            format!("{bind:?} is not an IP address"),
            hint,
        );
    }
}

/// `[namespace/]host`.
fn server_host(check: &mut Checker<'_>, field: &str, written: &str) {
    let (namespace, host) = written.split_once('/').unwrap_or(("*", written));
    if !matches!(namespace, "*" | ".") && !is_dns_label(namespace) {
        let hint = "before the slash, write *, . or the name of a namespace";
        check.error(field, format!("{namespace:?} is not a namespace"), hint);
    }
    if host.parse::<IpAddr>().is_ok() {
        return;
    }
    if let Some(problem) = wildcard_domain_problem(host) {
        let hint = "write a name such as www.example.com or *.example.com";
        check.error(field, format!("host {host:?} {problem}"), hint);
    } else if names::is_partial_wildcard(host) {
        let message = format!("host {host:?} has a wildcard for a part of a label");
        check.error(field, message, "write *. before whole labels");
    } else if host != "*" && !host.contains('.') {
        let hint = "write the full name: a Gateway has no search domains";
        check.error(field, format!("host {host:?} is a short name"), hint);
    }
}
