//! ServiceEntry and WorkloadEntry.

use super::{NoEffect, NotEnforced, Row, not_enforced, report, row};
use crate::checker::Checker;
use crate::istio::service_entry::{Resolution, ServiceEntry};
use crate::istio::workload_entry::WorkloadEntry;

#[rustfmt::skip] // A table: one field, one line.
const ENTRY: &[Row<ServiceEntry>] = &[
    row("resolution", |entry| entry.resolution == Resolution::None, NotEnforced("requests get 503: behind a virtual address there is no original destination")),
    row("resolution", |entry| entry.resolution == Resolution::DynamicDns, NotEnforced("the entry's host is resolved, not that of the request")),
    row("addresses", |entry| !entry.addresses.is_empty(), NoEffect("only sidecars look at virtual addresses")),
];

#[rustfmt::skip] // A table: one field, one line.
const WORKLOAD: &[Row<WorkloadEntry>] = &[
    row("network", |entry| !entry.network.is_empty(), NoEffect("all endpoints are reached directly")),
    row("serviceAccount", |entry| !entry.service_account.is_empty(), NoEffect("endpoints are spoken to in plain text")),
];

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
