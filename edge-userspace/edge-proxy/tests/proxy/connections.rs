//! What a cluster allows its connections: how many, for how long, for how many requests, and who waits.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_model::{
    CircuitBreakers, Cluster, ConnectionPool, Kind, ListenerProtocol, ObjectRef, TcpRoute, UpstreamProtocol,
    WeightedCluster,
};
use edge_proxy::ProxyOptions;
use http::Request;
use http_body_util::Full;

use crate::support::{
    Backend, Client, Edge, Http2Backend, RawBackend, Snap, cluster, eventually, forward, free_port, get,
    http2, prefix, route, service,
};

/// One worker, everything to the cluster.
fn edge_with(cluster: Cluster) -> (Edge, u16) {
    let port = free_port();
    let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster);
    (Edge::start_with(snap, ProxyOptions::new(1)), port)
}

fn limited(endpoints: &[SocketAddr], connections: u32, pending: u32) -> Cluster {
    Cluster {
        circuit_breakers: CircuitBreakers {
            max_connections: connections,
            max_pending_requests: pending,
            ..CircuitBreakers::default()
        },
        ..service("web", endpoints)
    }
}

fn pooled(endpoint: SocketAddr, pool: ConnectionPool) -> Cluster {
    Cluster {
        pool,
        ..service("web", &[endpoint])
    }
}

/// Answers all requests of a connection, each after a pause.
fn answering(pause: Duration) -> RawBackend {
    RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            std::thread::sleep(pause);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn requests_wait_for_one_of_the_connections_that_the_cluster_may_have() {
    const CLIENTS: u64 = 8;
    let web = answering(Duration::from_millis(20));
    let (_edge, port) = edge_with(limited(&[web.address], 2, u32::MAX));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| assert_eq!(get(port, "a", "/").status, 200));
        }
    });
    assert_eq!(web.connections(), 2);
}

#[test]
fn who_finds_too_many_waiting_is_refused_at_once() {
    let (arrived, released) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (counter, gate) = (Arc::clone(&arrived), Arc::clone(&released));
    let web = RawBackend::start(move |mut stream, _| {
        while !RawBackend::read_head(&mut stream).is_empty() {
            counter.fetch_add(1, Ordering::SeqCst);
            assert!(eventually(|| gate.load(Ordering::SeqCst)));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let (edge, port) = edge_with(limited(&[web.address], 1, 1));
    let active = || edge.proxy.clusters()[0].endpoints[0].requests_active;
    let [mut served, mut waiting] = [(); 2].map(|()| Client::connect(port));
    served.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(eventually(|| arrived.load(Ordering::SeqCst) == 1));
    waiting.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(eventually(|| active() == 2));
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
    released.store(true, Ordering::SeqCst);
    assert_eq!(served.read("GET").unwrap().status, 200);
    assert_eq!(waiting.read("GET").unwrap().status, 200);
    assert_eq!(web.connections(), 1);
}

#[test]
fn without_a_queue_every_new_connection_is_one_too_many() {
    let web = Backend::start("one");
    let (_edge, port) = edge_with(limited(&[web.address], u32::MAX, 0));
    assert_eq!(get(port, "a", "/").status, 503);
}

#[test]
fn an_idle_connection_to_one_endpoint_gives_way_for_one_to_another() {
    let backends = [Backend::start("one"), Backend::start("two")];
    let (_edge, port) = edge_with(limited(&[backends[0].address, backends[1].address], 1, u32::MAX));
    let mut client = Client::connect(port);
    for _ in 0..6 {
        assert_eq!(client.get("a", "/").unwrap().status, 200);
    }
    assert_eq!(backends.map(|backend| backend.hits()), [3, 3]);
}

#[test]
fn a_connection_takes_as_many_requests_as_it_may() {
    for (most, connections) in [(1, 6), (2, 3), (4, 2), (100, 1)] {
        let web = answering(Duration::ZERO);
        let pool = ConnectionPool {
            max_requests_per_connection: Some(most),
            ..ConnectionPool::default()
        };
        let (_edge, port) = edge_with(pooled(web.address, pool));
        let mut client = Client::connect(port);
        for _ in 0..6 {
            assert_eq!(client.get("a", "/").unwrap().text(), "ok");
        }
        assert_eq!(web.connections(), connections, "{most}");
    }
}

#[test]
fn idle_and_old_connections_are_closed() {
    let short = Some(Duration::from_millis(300));
    for pool in [
        ConnectionPool {
            idle_timeout: short,
            ..ConnectionPool::default()
        },
        ConnectionPool {
            max_connection_duration: short,
            ..ConnectionPool::default()
        },
    ] {
        let web = answering(Duration::ZERO);
        let (_edge, port) = edge_with(pooled(web.address, pool.clone()));
        let mut client = Client::connect(port);
        assert_eq!(client.get("a", "/").unwrap().text(), "ok");
        assert!(eventually(|| web.open() == 0), "{pool:?}");
        assert_eq!(client.get("a", "/").unwrap().text(), "ok");
        assert_eq!(web.connections(), 2);
    }
}

#[test]
fn a_connection_of_http2_carries_as_many_requests_at_once_as_it_may() {
    for (most, connections) in [(1, 3), (2, 2), (100, 1)] {
        let web = Http2Backend::start();
        let cluster = Cluster {
            protocol: UpstreamProtocol::Http2,
            ..pooled(
                web.address,
                ConnectionPool {
                    max_concurrent_streams: most,
                    ..ConnectionPool::default()
                },
            )
        };
        let (_edge, port) = edge_with(cluster);
        let request = || Request::get("http://a/").body(Full::<Bytes>::default()).unwrap();
        for answer in http2(port, vec![request(), request(), request()]) {
            assert_eq!(answer.unwrap().status, 200);
        }
        assert_eq!(web.connections(), connections, "{most}");
    }
}

#[test]
fn bytes_are_forwarded_over_as_many_connections_as_the_cluster_may_have() {
    let served = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&served);
    let echo = RawBackend::start(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
    });
    let port = free_port();
    let route = TcpRoute {
        object: Arc::new(ObjectRef {
            kind: Kind::VirtualService,
            namespace: "shop".into(),
            name: "web".into(),
        }),
        rule: 0,
        destinations: vec![WeightedCluster {
            cluster: cluster("web"),
            weight: 1,
        }],
    };
    let snap = Snap::default()
        .listen_with(port, ListenerProtocol::Tcp(Arc::new(route)))
        .with(limited(&[echo.address], 1, u32::MAX));
    let _edge = Edge::start_with(snap, ProxyOptions::new(1));
    let mut first = Client::connect(port);
    first.write("a few bytes").unwrap();
    assert_eq!(first.read_bytes(11).unwrap(), b"a few bytes");
    assert!(
        Client::connect(port).is_at_end(),
        "there is no place for a second one"
    );
    drop(first);
    assert!(eventually(|| {
        let mut next = Client::connect(port);
        next.write("x").is_ok() && next.read_bytes(1).is_ok()
    }));
}
