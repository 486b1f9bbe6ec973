//! DestinationRule.

use super::{NoEffect, NotEnforced, Row, report, row};
use crate::checker::Checker;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::destination_rule::policy::{LoadBalancerSettings, SimpleLb, TrafficPolicy};

const ALL_ALIKE: &str = "all endpoints are alike, wherever they are";

#[rustfmt::skip] // A table: one field, one line.
const POLICY: &[Row<TrafficPolicy>] = &[
    row("tunnel", |policy| policy.tunnel.is_some(), NoEffect("tunnels are for egress")),
];

#[rustfmt::skip] // A table: one field, one line.
const LOAD_BALANCER: &[Row<LoadBalancerSettings>] = &[
    row("zoneAwareLbSetting", |lb| lb.zone_aware_lb_setting.is_some(), NotEnforced(ALL_ALIKE)),
    row("backendUtilization", |lb| lb.backend_utilization.is_some(), NotEnforced("reports of load are not read")),
    row("simple", |lb| lb.simple == Some(SimpleLb::Passthrough), NotEnforced("requests get 503: behind a virtual address there is no original destination")),
];

pub(super) fn check(check: &mut Checker<'_>, rule: &DestinationRule) {
    policy(check, "spec.trafficPolicy", rule.traffic_policy.as_ref());
    for (index, subset) in rule.subsets.iter().enumerate() {
        policy(
            check,
            &format!("spec.subsets[{index}].trafficPolicy"),
            subset.traffic_policy.as_ref(),
        );
    }
}

fn policy(check: &mut Checker<'_>, path: &str, policy: Option<&TrafficPolicy>) {
    let Some(policy) = policy else { return };
    report(check, path, policy, POLICY);
    blocks(check, path, policy.load_balancer.as_ref());
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        blocks(check, &path, port.load_balancer.as_ref());
    }
}

fn blocks(check: &mut Checker<'_>, path: &str, load_balancer: Option<&LoadBalancerSettings>) {
    if let Some(load_balancer) = load_balancer {
        report(
            check,
            &format!("{path}.loadBalancer"),
            load_balancer,
            LOAD_BALANCER,
        );
    }
}
