//! DestinationRule.

use super::{NoEffect, NotEnforced, Row, report, row};
use crate::checker::Checker;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::destination_rule::policy::{
    ClientTlsMode, ConnectionPoolSettings, LoadBalancerSettings, PortTrafficPolicy, SimpleLb, TcpSettings,
    TrafficPolicy,
};

const NO_EJECTION: &str = "no endpoint is taken out for its answers";
const NO_TLS: &str = "requests get 503: they are not sent in plain text";
const NO_LIMITS: &str = "of the connection pool, only tcp.connectTimeout is looked at";
const ALL_ALIKE: &str = "all endpoints are alike, wherever they are";
const NO_WARMUP: &str = "a new endpoint takes its share at once";

#[rustfmt::skip] // A table: one field, one line.
const POLICY: &[Row<TrafficPolicy>] = &[
    row("outlierDetection", |policy| policy.outlier_detection.is_some(), NotEnforced(NO_EJECTION)),
    row("tls", |policy| is_encrypted(policy.tls.as_ref().map(|tls| tls.mode)), NotEnforced(NO_TLS)),
    row("tunnel", |policy| policy.tunnel.is_some(), NoEffect("tunnels are for egress")),
    row("proxyProtocol", |policy| policy.proxy_protocol.is_some(), NotEnforced("endpoints get the client's address in x-forwarded-for alone")),
    row("retryBudget", |policy| policy.retry_budget.is_some(), NotEnforced("nothing is tried again")),
];

#[rustfmt::skip] // A table: one field, one line.
const PORT_POLICY: &[Row<PortTrafficPolicy>] = &[
    row("outlierDetection", |policy| policy.outlier_detection.is_some(), NotEnforced(NO_EJECTION)),
    row("tls", |policy| is_encrypted(policy.tls.as_ref().map(|tls| tls.mode)), NotEnforced(NO_TLS)),
];

#[rustfmt::skip] // A table: one field, one line.
const LOAD_BALANCER: &[Row<LoadBalancerSettings>] = &[
    row("consistentHash", |lb| lb.consistent_hash.is_some(), NotEnforced("endpoints are chosen by LEAST_REQUEST")),
    row("localityLbSetting", |lb| lb.locality_lb_setting.is_some(), NotEnforced(ALL_ALIKE)),
    row("zoneAwareLbSetting", |lb| lb.zone_aware_lb_setting.is_some(), NotEnforced(ALL_ALIKE)),
    row("backendUtilization", |lb| lb.backend_utilization.is_some(), NotEnforced("reports of load are not read")),
    row("warmup", |lb| lb.warmup.is_some(), NotEnforced(NO_WARMUP)),
    row("warmupDurationSecs", |lb| lb.warmup_duration_secs.is_some(), NotEnforced(NO_WARMUP)),
    row("simple", |lb| lb.simple == Some(SimpleLb::Passthrough), NotEnforced("endpoints are chosen by LEAST_REQUEST")),
];

#[rustfmt::skip] // A table: one field, one line.
const POOL: &[Row<ConnectionPoolSettings>] = &[
    row("http", |pool| pool.http.is_some(), NotEnforced(NO_LIMITS)),
];

#[rustfmt::skip] // A table: one field, one line.
const TCP: &[Row<TcpSettings>] = &[
    row("maxConnections", |tcp| tcp.max_connections != 0, NotEnforced(NO_LIMITS)),
    row("tcpKeepalive", |tcp| tcp.tcp_keepalive.is_some(), NotEnforced(NO_LIMITS)),
    row("maxConnectionDuration", |tcp| tcp.max_connection_duration.is_some(), NotEnforced(NO_LIMITS)),
    row("idleTimeout", |tcp| tcp.idle_timeout.is_some(), NotEnforced(NO_LIMITS)),
];

fn is_encrypted(mode: Option<ClientTlsMode>) -> bool {
    mode.is_some_and(|mode| mode != ClientTlsMode::Disable)
}

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
    blocks(
        check,
        path,
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        report(check, &path, port, PORT_POLICY);
        blocks(
            check,
            &path,
            port.load_balancer.as_ref(),
            port.connection_pool.as_ref(),
        );
    }
}

fn blocks(
    check: &mut Checker<'_>,
    path: &str,
    load_balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
) {
    if let Some(load_balancer) = load_balancer {
        report(
            check,
            &format!("{path}.loadBalancer"),
            load_balancer,
            LOAD_BALANCER,
        );
    }
    if let Some(pool) = pool {
        report(check, &format!("{path}.connectionPool"), pool, POOL);
        if let Some(tcp) = &pool.tcp {
            report(check, &format!("{path}.connectionPool.tcp"), tcp, TCP);
        }
    }
}
