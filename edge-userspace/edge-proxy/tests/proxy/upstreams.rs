//! Which endpoint a request goes to: ejections, circuit breakers and consistent hashing.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge_model::{
    CircuitBreakers, Cluster, ConsistentHash, HashAlgorithm, HashCookie, HashKey, LoadBalancer,
    OutlierDetection,
};
use http::HeaderName;

use crate::support::{
    Backend, Client, Edge, RawBackend, Snap, eventually, forward, free_port, get, prefix, refusing, route,
    service, service_with,
};

fn snap(port: u16, cluster: Cluster) -> Snap {
    Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster)
}

fn detection(consecutive_5xx: u32, seconds: u64) -> Option<OutlierDetection> {
    Some(OutlierDetection {
        consecutive_5xx: Some(consecutive_5xx),
        base_ejection_time: Duration::from_secs(seconds),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    })
}

#[test]
fn an_endpoint_that_keeps_failing_is_left_out_and_comes_back() {
    let good = Backend::start("good");
    let (bad, requests) = always_500();
    let port = free_port();
    let cluster = Cluster {
        outlier_detection: detection(3, 1),
        ..service("web", &[good.address, bad.address])
    };
    let _edge = Edge::start(snap(port, cluster));
    let mut client = Client::connect(port);
    let mut failed = || {
        (0..20)
            .filter(|_| client.get("a", "/").unwrap().status == 500)
            .count()
    };
    assert_eq!(failed(), 3, "three in a row, then the endpoint is out");
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(failed(), 3, "it came back, failed, and is out again");
}

fn always_500() -> (RawBackend, Arc<AtomicU64>) {
    let requests = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&requests);
    let backend = RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (backend, requests)
}

#[test]
fn connect_failures_eject_so_that_no_further_request_is_tried_there() {
    let good = Backend::start("good");
    let port = free_port();
    let cluster = Cluster {
        outlier_detection: detection(2, 60),
        ..service("web", &[good.address, refusing()])
    };
    let edge = Edge::start(snap(port, cluster));
    let mut client = Client::connect(port);
    for _ in 0..40 {
        assert_eq!(client.get("a", "/").unwrap().status, 200, "a retry saves each");
    }
    let endpoints = &edge.proxy.clusters()[0].endpoints;
    assert_eq!(endpoints[1].requests_total, 2, "two failures, then nothing more");
    edge.expect_flagged("-", 40);
}

#[test]
fn requests_beyond_the_circuit_breaker_are_refused_at_once() {
    let backend = Backend::start("one");
    let port = free_port();
    let cluster = Cluster {
        circuit_breakers: CircuitBreakers {
            max_requests: 1,
            ..CircuitBreakers::default()
        },
        ..service("web", &[backend.address])
    };
    let edge = Edge::start(snap(port, cluster));
    let mut slow = Client::connect(port);
    slow.write("GET /sleep/1000 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(eventually(|| backend.hits() == 1));
    let refused = get(port, "a", "/");
    assert_eq!(
        (refused.status, refused.header("x-envoy-overloaded")),
        (503, Some("true"))
    );
    assert_eq!(
        refused.text(),
        "upstream connect error or disconnect/reset before headers. reset reason: overflow"
    );
    edge.expect_flagged("UO", 1);
    assert_eq!(slow.read("GET").unwrap().status, 200);
    let mut next = Client::connect(port);
    assert!(
        eventually(|| next.get("a", "/").unwrap().status == 200),
        "the place is free again"
    );
}

fn hashing(key: HashKey) -> LoadBalancer {
    LoadBalancer::ConsistentHash(ConsistentHash {
        key,
        algorithm: HashAlgorithm::Maglev { table_size: 65_537 },
    })
}

#[test]
fn requests_with_the_same_key_go_to_the_same_endpoint() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let port = free_port();
    let key = HashKey::Header(HeaderName::from_static("x-user"));
    let _edge = Edge::start(snap(port, service_with("web", &addresses, hashing(key))));
    let ask = |user: u32| {
        let mut client = Client::connect(port);
        client
            .write(format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: u{user}\r\n\r\n"))
            .unwrap();
        client.read("GET").unwrap().told("backend")
    };
    let mut used = HashSet::new();
    for user in 0..30 {
        let home = ask(user);
        // Over connections to both workers.
        assert!((0..4).all(|_| ask(user) == home));
        used.insert(home);
    }
    assert_eq!(used.len(), 3);
}

#[test]
fn a_client_without_the_cookie_gets_one_that_leads_it_back() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let port = free_port();
    let key = HashKey::Cookie(HashCookie {
        name: "sess".into(),
        path: "/p".into(),
        ttl: Some(Duration::ZERO),
        attributes: vec![],
    });
    let _edge = Edge::start(snap(port, service_with("web", &addresses, hashing(key))));
    for _ in 0..10 {
        let first = get(port, "a", "/");
        let set = first.header("set-cookie").unwrap();
        let (pair, attributes) = set.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/p; HttpOnly");
        let mut client = Client::connect(port);
        client
            .write(format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {pair}\r\n\r\n"))
            .unwrap();
        let again = client.read("GET").unwrap();
        assert_eq!(again.told("backend"), first.told("backend"));
        assert_eq!(again.header("set-cookie"), None);
    }
}
