//! How many series the metrics have, whatever endpoints answer and however often the configuration changes.

use std::net::SocketAddr;

use edge_proxy::ProxyOptions;

use crate::support::{Backend, Client, Edge, Snap, eventually, forward, free_port, prefix, route, service};

const REQUESTS: &str = "istio_requests_total";

/// Metrics that have a series for each kind of answer of a destination.
const STANDARD: [&str; 4] = [
    REQUESTS,
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_count",
    "istio_response_bytes_count",
];

fn series(edge: &Edge, name: &str) -> usize {
    edge.lines(&format!("{name}{{"))
        .matches(&format!("{name}{{"))
        .count()
}

#[test]
fn statuses_beyond_the_bound_of_a_destination_are_counted_together_by_all_workers() {
    // The bound (`MOST`), and the statuses that are asked for twice, over connections to both workers.
    const MOST: u16 = 128;
    const STATUSES: std::ops::Range<u16> = 200..600;
    const TIMES: u16 = 2;
    let backend = Backend::start("one");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[backend.address]));
    for _ in 0..TIMES {
        for first in STATUSES.step_by(25) {
            let mut client = Client::connect(port);
            for status in first..first + 25 {
                let reply = client.get("a", &format!("/status/{status}")).unwrap();
                assert_eq!(reply.status, status);
            }
        }
    }
    let all = u64::from(STATUSES.end - STATUSES.start);
    for name in STANDARD {
        edge.expect_metric(name, &[], all * u64::from(TIMES));
        assert_eq!(series(&edge, name), usize::from(MOST) + 1, "{name}");
    }
    let rest = (all - u64::from(MOST)) * u64::from(TIMES);
    edge.expect_metric(REQUESTS, &["response_code=\"0\"", "response_flags=\"-\""], rest);
    // The first ones have series of their own.
    edge.expect_metric(REQUESTS, &["response_code=\"200\""], u64::from(TIMES));
    // What is not of this destination is not concerned.
    let (mut client, host) = (Client::connect(port), "x".repeat(300));
    client.write(format!("GET / HTTP/1.1\r\n{host}\r\n\r\n")).unwrap();
    assert_eq!(client.read("GET").unwrap().status, 400);
    edge.expect_metric(REQUESTS, &["response_code=\"400\"", "response_flags=\"DPE\""], 1);
}

#[test]
fn configurations_that_come_and_go_leave_no_more_series_than_the_bound() {
    // The bound (`MOST_GONE`), and configurations whose service is in no other and answers in so many ways.
    const MOST_GONE: usize = 1024;
    const CONFIGURATIONS: usize = 160;
    const STATUSES: usize = 8;
    const KEPT: usize = MOST_GONE / STATUSES;
    let backend = Backend::start_at("one", SocketAddr::from(([0, 0, 0, 0], 0)));
    let endpoint = |number: usize| {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 1, high, low], backend.address.port()))
    };
    let port = free_port();
    let snap = |number: usize| {
        let name = format!("s{number}");
        let rules = vec![
            route(prefix("/stays"), forward(&[("stays", 1)])),
            route(prefix("/"), forward(&[(&name, 1)])),
        ];
        // The service that stays moves to another address each time.
        Snap::new(port, rules)
            .with(service("stays", &[endpoint(number)]))
            .with(service(&name, &[endpoint(number)]))
    };
    // One worker, so that services are gone in the order in which others took their place.
    let edge = Edge::start_with(snap(0), ProxyOptions::new(1));
    let mut client = Client::connect(port);
    for number in 0..CONFIGURATIONS {
        edge.apply(snap(number));
        let statuses = (0..STATUSES).map(|status| format!("/status/{}", 400 + status));
        for path in statuses.chain(["/stays".to_owned()]) {
            client.get("a", &path).unwrap();
        }
    }
    let of = |name: &str| format!("destination_service_name=\"{name}\"");
    for name in STANDARD {
        // With the service in force and the one that stays.
        let is_bounded = || series(&edge, name) == MOST_GONE + STATUSES + 1;
        assert!(
            eventually(is_bounded),
            "{name} has {} series",
            series(&edge, name)
        );
        edge.expect_metric(name, &[&of("stays")], CONFIGURATIONS as u64);
        edge.expect_metric(name, &[&of(&format!("s{}", CONFIGURATIONS - 1))], STATUSES as u64);
        // The longest gone are those that leave.
        let oldest = CONFIGURATIONS - 1 - KEPT;
        edge.expect_metric(name, &[&of(&format!("s{}", oldest - 1))], 0);
        edge.expect_metric(name, &[&of(&format!("s{oldest}"))], STATUSES as u64);
    }
    // One that comes back counts on.
    let back = CONFIGURATIONS - KEPT / 2;
    edge.apply(snap(back));
    assert_eq!(client.get("a", "/status/400").unwrap().status, 400);
    let of_back = of(&format!("s{back}"));
    edge.expect_metric(REQUESTS, &[&of_back, "response_code=\"400\""], 2);
    edge.expect_metric(REQUESTS, &[&of_back], STATUSES as u64 + 1);
}
