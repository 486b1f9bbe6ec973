//! DestinationRule: host, subsets, and whom it is for.

use std::collections::HashSet;

use super::names::{self, Export, is_dns_label};
use super::policy;
use crate::checker::Checker;
use crate::istio::destination_rule::DestinationRule;
use crate::k8s::meta::Meta;

pub(super) fn check(check: &mut Checker<'_>, meta: &Meta, rule: &DestinationRule) {
    match rule.host.as_str() {
        "" => check.error("spec.host", "is missing", "name the service that the rule is for"),
        host => names::host(check, "spec.host", host),
    }
    if let Some(policy) = &rule.traffic_policy {
        policy::check(check, "spec.trafficPolicy", policy);
    }
    let mut seen = HashSet::new();
    for (index, subset) in rule.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        let field = format!("{path}.name");
        if subset.name.is_empty() {
            check.error(&field, "is missing", "name the subset, such as v1");
        } else if !is_dns_label(&subset.name) {
            let message = format!("{:?} is not the name of a subset", subset.name);
            check.error(&field, message, "use letters, digits and dashes");
        } else if !seen.insert(&subset.name) {
            check.error(
                &field,
                format!("subset {:?} stands twice", subset.name),
                "give each its own name",
            );
        }
        names::labels(check, &format!("{path}.labels"), &subset.labels);
        if let Some(policy) = &subset.traffic_policy {
            policy::check(check, &format!("{path}.trafficPolicy"), policy);
        }
    }
    if let Some(selector) = &rule.workload_selector {
        selector_labels(check, selector);
    }
    let export = Export {
        namespace: &meta.namespace,
        none_allowed: false,
        stays: rule.workload_selector.is_some(),
    };
    names::export_to(check, &rule.export_to, &export);
}

fn selector_labels(check: &mut Checker<'_>, selector: &crate::istio::destination_rule::WorkloadSelector) {
    if selector.match_labels.is_empty() {
        let hint = "name labels, or remove workloadSelector";
        check.warn(
            "spec.workloadSelector",
            "without labels it is for all workloads",
            hint,
        );
    }
    for (key, value) in &selector.match_labels {
        if key.is_empty() || key.contains('*') || value.contains('*') {
            let message = format!("{key}: {value} is not a label");
            check.error(
                "spec.workloadSelector.matchLabels",
                message,
                "name labels in full",
            );
        }
    }
}
