//! ServiceEntry and WorkloadEntry.

use std::net::IpAddr;

use super::{NoEffect, NotEnforced, Row, not_enforced, report, row};
use crate::checker::Checker;
use crate::istio::service_entry::{Resolution, ServiceEntry};
use crate::istio::workload_entry::WorkloadEntry;

#[rustfmt::skip] // A table: one field, one line.
const ENTRY: &[Row<ServiceEntry>] = &[
    row("resolution", |entry| entry.resolution != Resolution::Static, NotEnforced("it has no endpoints, requests get 503: write resolution: STATIC, and the addresses under endpoints")),
    row("subjectAltNames", |entry| !entry.subject_alt_names.is_empty(), NotEnforced("endpoints show no certificate: they are spoken to in plain text")),
    row("addresses", |entry| !entry.addresses.is_empty(), NoEffect("only sidecars look at virtual addresses")),
];

#[rustfmt::skip] // A table: one field, one line.
const WORKLOAD: &[Row<WorkloadEntry>] = &[
    row("address", |entry| !entry.address.is_empty() && !is_ip(&entry.address), NotEnforced("the endpoint is left out: write an IP address, names are not resolved")),
    row("network", |entry| !entry.network.is_empty(), NoEffect("all endpoints are reached directly")),
    row("locality", |entry| !entry.locality.is_empty(), NoEffect("all endpoints are alike")),
    row("serviceAccount", |entry| !entry.service_account.is_empty(), NoEffect("endpoints are spoken to in plain text")),
];

fn is_ip(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok()
}

pub(super) fn check(check: &mut Checker<'_>, entry: &ServiceEntry) {
    report(check, "spec", entry, ENTRY);
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        check_workload(check, &format!("spec.endpoints[{index}]"), endpoint);
    }
}

pub(super) fn check_workload(check: &mut Checker<'_>, path: &str, entry: &WorkloadEntry) {
    report(check, path, entry, WORKLOAD);
    if entry.address.is_empty() {
        let instead = "the endpoint is left out: write the IP address of the workload";
        not_enforced(
            check,
            &format!("{path}.address"),
            "endpoints without an address",
            instead,
        );
    }
}
