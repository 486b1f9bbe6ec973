//! DestinationRule.

use super::{NoEffect, NotEnforced, Row, report, row};
use crate::checker::Checker;
use crate::istio::destination_rule::DestinationRule;
use crate::istio::destination_rule::policy::{
    ConnectionPoolSettings, HttpSettings, LoadBalancerSettings, SimpleLb, TcpSettings, TrafficPolicy,
};

const NO_POOL: &str = "connections are kept for an hour, as many as are needed";
const ALL_ALIKE: &str = "all endpoints are alike, wherever they are";

#[rustfmt::skip] // A table: one field, one line.
const POLICY: &[Row<TrafficPolicy>] = &[
    row("tunnel", |policy| policy.tunnel.is_some(), NoEffect("tunnels are for egress")),
    row("proxyProtocol", |policy| policy.proxy_protocol.is_some(), NotEnforced("endpoints get the client's address in x-forwarded-for alone")),
];

#[rustfmt::skip] // A table: one field, one line.
const LOAD_BALANCER: &[Row<LoadBalancerSettings>] = &[
    row("zoneAwareLbSetting", |lb| lb.zone_aware_lb_setting.is_some(), NotEnforced(ALL_ALIKE)),
    row("backendUtilization", |lb| lb.backend_utilization.is_some(), NotEnforced("reports of load are not read")),
    row("simple", |lb| lb.simple == Some(SimpleLb::Passthrough), NotEnforced("requests get 503: behind a virtual address there is no original destination")),
];

#[rustfmt::skip] // A table: one field, one line.
const HTTP: &[Row<HttpSettings>] = &[
    row("http1MaxPendingRequests", |http| http.http1_max_pending_requests != 0, NotEnforced("requests do not wait for a connection, one is opened")),
    row("maxRequestsPerConnection", |http| http.max_requests_per_connection != 0, NotEnforced(NO_POOL)),
    row("idleTimeout", |http| http.idle_timeout.is_some(), NotEnforced(NO_POOL)),
    row("maxConcurrentStreams", |http| http.max_concurrent_streams != 0, NotEnforced(NO_POOL)),
    row("http2KeepAlive", |http| http.http2_keep_alive.is_some(), NotEnforced(NO_POOL)),
];

#[rustfmt::skip] // A table: one field, one line.
const TCP: &[Row<TcpSettings>] = &[
    row("maxConnections", |tcp| tcp.max_connections != 0, NotEnforced(NO_POOL)),
    row("tcpKeepalive", |tcp| tcp.tcp_keepalive.is_some(), NotEnforced(NO_POOL)),
    row("maxConnectionDuration", |tcp| tcp.max_connection_duration.is_some(), NotEnforced(NO_POOL)),
    row("idleTimeout", |tcp| tcp.idle_timeout.is_some(), NotEnforced(NO_POOL)),
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
    blocks(
        check,
        path,
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
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
        if let Some(http) = &pool.http {
            report(check, &format!("{path}.connectionPool.http"), http, HTTP);
        }
        if let Some(tcp) = &pool.tcp {
            report(check, &format!("{path}.connectionPool.tcp"), tcp, TCP);
        }
    }
}
