//! Statistics of single endpoints, and of routes with `statPrefix`.

use std::sync::Arc;
use std::time::Duration;

use edge_model::{RetryPolicy, Route, RouteAction};

use crate::support::{
    Backend, Edge, RawBackend, Snap, eventually, forward, free_port, get, prefix, refusing, retries, route,
    service,
};
use crate::tcp::{exchange, listen};

/// A route without retries, with a name for its statistics.
fn named(path: &str, name: &str, to: &str) -> Route {
    let mut route = route(prefix(path), forward(&[(to, 1)]));
    name.clone_into(&mut route.stat_prefix);
    set_retries(&mut route, retries(0, &[]));
    route
}

fn set_retries(route: &mut Route, policy: RetryPolicy) {
    if let RouteAction::Forward(forward) = &mut route.action {
        forward.retries = Arc::new(policy);
    }
}

fn timeout(route: &mut Route, time: Duration) {
    if let RouteAction::Forward(forward) = &mut route.action {
        forward.timeout = Some(time);
    }
}

#[test]
fn what_each_endpoint_made_of_its_requests_is_counted() {
    let (one, other) = (Backend::start("one"), Backend::start("other"));
    let cut = RawBackend::start(|mut stream, _| drop(RawBackend::read_head(&mut stream)));
    let port = free_port();
    let mut slow = named("/slow", "", "one");
    timeout(&mut slow, Duration::from_millis(50));
    slow.matcher = prefix("/sleep");
    let snap = Snap::new(
        port,
        vec![
            slow,
            named("/cut", "", "cut"),
            named("/refused", "", "refused"),
            named("/other", "", "other"),
            named("/", "", "one"),
        ],
    );
    let refused = refusing();
    let snap = snap
        .with(service("one", &[one.address]))
        .with(service("other", &[other.address]))
        .with(service("cut", &[cut.address]))
        .with(service("refused", &[refused]));
    let edge = Edge::start(snap);
    for path in [
        "/",
        "/status/404",
        "/status/503",
        "/sleep/5000",
        "/cut",
        "/refused",
        "/other",
    ] {
        get(port, "a", path);
    }
    // Requests, successes, errors, timeouts, failures to connect.
    for (name, address, expected) in [
        ("one", one.address, [4, 2, 2, 1, 0]),
        ("other", other.address, [1, 1, 0, 0, 0]),
        ("cut", cut.address, [1, 0, 1, 0, 0]),
        ("refused", refused, [0, 0, 0, 0, 1]),
    ] {
        let labels = [
            format!("envoy_cluster_name=\"outbound|80||{name}.shop.svc.cluster.local\""),
            format!("envoy_endpoint_address=\"{address}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        let metrics = [
            "rq_total",
            "rq_success",
            "rq_error",
            "rq_timeout",
            "cx_connect_fail",
        ];
        for (metric, expected) in metrics.into_iter().zip(expected) {
            edge.expect_metric(&format!("envoy_cluster_endpoint_{metric}"), &labels, expected);
        }
    }
}

#[test]
fn an_endpoint_that_connections_are_forwarded_to_counts_those_that_fail() {
    let (port, refused) = (free_port(), refusing());
    let edge = Edge::start(listen(port, &[("db", 1)]).with(service("db", &[refused])));
    let _ = exchange(port, b"hello");
    let address = format!("envoy_endpoint_address=\"{refused}\"");
    let failed = || edge.metric("envoy_cluster_endpoint_cx_connect_fail", &[&address]) > 0.0;
    assert!(eventually(failed));
    edge.expect_metric("envoy_cluster_endpoint_rq_total", &[&address], 0);
}

#[test]
fn routes_with_a_name_have_statistics_and_keep_them_over_changes() {
    let backend = Backend::start("one");
    let port = free_port();
    let snap = |further: &str| {
        let mut slow = named("/sleep", "slow", "one");
        timeout(&mut slow, Duration::from_millis(50));
        let mut retried = named("/status/503", "retried", "one");
        set_retries(&mut retried, retries(2, &["5xx"]));
        let routes = vec![
            slow,
            retried,
            named("/nothing", "nobody", "none"),
            named("/status", "plain", "one"),
            named(further, "", "one"),
        ];
        Snap::new(port, routes).with(service("one", &[backend.address]))
    };
    let edge = Edge::start(snap("/"));
    for path in [
        "/sleep/5000",
        "/status/503",
        "/status/200",
        "/status/404",
        "/nothing",
        "/",
    ] {
        get(port, "a", path);
    }
    edge.apply(snap("/changed"));
    assert_eq!(get(port, "a", "/status/204").status, 204);
    // Requests, 2xx, 4xx, 5xx, retries, timeouts.
    for (name, expected) in [
        ("slow", [1, 0, 0, 1, 0, 1]),
        ("retried", [1, 0, 0, 1, 2, 0]),
        ("plain", [3, 2, 1, 0, 0, 0]),
        // No endpoint was asked.
        ("nobody", [0; 6]),
    ] {
        let name = format!("envoy_route=\"{name}\"");
        let labels = ["envoy_virtual_host=", &name];
        let class = |digit| format!("envoy_response_code_class=\"{digit}\"");
        let [requests, two, four, five, retries, timeouts] = expected;
        let of = |metric: &str| format!("envoy_vhost_route_upstream_rq_{metric}");
        edge.expect_metric(&of("total"), &labels, requests);
        edge.expect_metric(&of("time_count"), &labels, requests);
        edge.expect_metric(&of("retry"), &labels, retries);
        edge.expect_metric(&of("timeout"), &labels, timeouts);
        for (digit, expected) in [(2, two), (4, four), (5, five)] {
            edge.expect_metric(&of("xx"), &[labels[0], labels[1], &class(digit)], expected);
        }
    }
    edge.expect_metric("envoy_vhost_route_upstream_rq_total", &[], 5);
}
