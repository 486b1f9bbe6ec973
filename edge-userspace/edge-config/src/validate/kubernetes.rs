//! Kubernetes' kinds, as far as they are read: the API server has its own, stricter rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::values;
use crate::checker::Checker;
use crate::k8s::config_map::ConfigMap;
use crate::k8s::endpoint_slice::EndpointSlice;
use crate::k8s::pod::Pod;
use crate::k8s::secret::Secret;
use crate::k8s::service::{IntOrString, Service};

pub(super) fn check_service(check: &mut Checker<'_>, service: &Service) {
    for (index, port) in service.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        values::port(check, &format!("{path}.port"), port.port);
        if port.name.is_empty() && service.ports.len() > 1 {
            let hint = "name the port: a Service with several needs names";
            check.error(&format!("{path}.name"), "is missing", hint);
        }
        if port.target_port == Some(IntOrString::Int(0)) {
            let hint = "write a number from 1 to 65535 or the name of a container's port";
            check.error(&format!("{path}.targetPort"), "0 is not a port", hint);
        }
        if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP" | "SCTP") {
            let message = format!("{:?} is not a transport protocol", port.protocol);
            check.error(&format!("{path}.protocol"), message, "write TCP, UDP or SCTP");
        }
    }
}

pub(super) fn check_endpoint_slice(check: &mut Checker<'_>, slice: &EndpointSlice) {
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6" | "FQDN") {
        let message = format!("{:?} is not a type of address", slice.address_type);
        check.error("addressType", message, "write IPv4, IPv6 or FQDN");
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            let hint = "write the address of the endpoint";
            check.error(&format!("endpoints[{index}].addresses"), "is empty", hint);
        }
        for (number, address) in endpoint.addresses.iter().enumerate() {
            let ip = address.parse::<IpAddr>().ok();
            let right = match slice.address_type.as_str() {
                "IPv4" => ip.is_some_and(|ip| ip.is_ipv4()),
                "IPv6" => ip.is_some_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            if !right {
                let field = format!("endpoints[{index}].addresses[{number}]");
                let message = format!("{address:?} is not an {} address", slice.address_type);
                check.error(&field, message, "correct the address or addressType");
            }
        }
    }
}

pub(super) fn check_pod(check: &mut Checker<'_>, pod: &Pod) {
    let addresses = pod.status.pod_ips.iter().enumerate();
    let addresses = addresses.map(|(index, ip)| (format!("status.podIPs[{index}].ip"), ip.ip.as_str()));
    for (field, ip) in addresses.chain([("status.podIP".to_owned(), pod.status.pod_ip.as_str())]) {
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            check.error(
                &field,
                format!("{ip:?} is not an IP address"),
                "correct the address",
            );
        }
    }
}

pub(super) fn check_secret(check: &mut Checker<'_>, secret: &Secret) {
    base64_entries(check, "data", &secret.data, "write plain text under stringData");
}

pub(super) fn check_config_map(check: &mut Checker<'_>, map: &ConfigMap) {
    base64_entries(
        check,
        "binaryData",
        &map.binary_data,
        "write plain text under data",
    );
    for name in map.data.keys().filter(|name| map.binary_data.contains_key(*name)) {
        let message = "stands under data and under binaryData";
        check.error(&format!("binaryData.{name}"), message, "keep one of them");
    }
}

fn base64_entries(check: &mut Checker<'_>, path: &str, entries: &BTreeMap<String, String>, hint: &str) {
    for (name, text) in entries {
        if crate::base64::decode(text).is_none() {
            check.error(&format!("{path}.{name}"), "is not Base64", hint);
        }
    }
}
