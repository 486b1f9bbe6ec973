//! Endpoints by name, and a name server that comes and goes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use edge_model::{Cluster, Discovery, DnsEndpoint, WorkloadMeta};
use edge_proxy::{DnsOptions, ProxyOptions};

use crate::support::{
    Backend, Client, DnsServer, Edge, Snap, Zone, eventually, forward, free_port, get, prefix, route, service,
};
use crate::tcp::{exchange, listen};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const NAME: &str = "web.example.com";

/// Two backends with one port at different addresses.
fn backends() -> [Backend; 2] {
    let first = Backend::start("first");
    let second = Backend::start_at("second", SocketAddr::from((SECOND, first.address.port())));
    [first, second]
}

fn named(discovery: fn(Vec<DnsEndpoint>) -> Discovery, port: u16) -> Cluster {
    let endpoint = DnsEndpoint {
        name: NAME.into(),
        port,
        weight: 1,
        locality: "".into(),
        priority: 0,
        workload: Arc::new(WorkloadMeta {
            workload: "web-v1".into(),
            namespace: "shop".into(),
            app: "web".into(),
            version: "v1".into(),
            canonical_service: "web".into(),
            canonical_revision: "v1".into(),
        }),
    };
    Cluster {
        discovery: discovery(vec![endpoint]),
        ..service("web", &[])
    }
}

fn snap(port: u16, cluster: Cluster) -> Snap {
    Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]).with(cluster)
}

/// Answers are asked for again every 100 ms, whatever their TTL.
fn options(server: &DnsServer) -> ProxyOptions {
    ProxyOptions {
        dns: DnsOptions {
            name_servers: vec![server.address],
            min_ttl: Duration::from_millis(100),
            max_ttl: Duration::from_millis(100),
            timeout: Duration::from_millis(300),
        },
        ..ProxyOptions::new(2)
    }
}

fn names(addresses: &[Ipv4Addr]) -> Zone {
    Zone::Names(vec![(NAME, addresses.to_vec())])
}

/// Addresses of the cluster's endpoints.
fn endpoints(edge: &Edge) -> Vec<std::net::IpAddr> {
    let clusters = edge.proxy.clusters();
    clusters[0]
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.ip())
        .collect()
}

#[test]
fn every_address_of_a_name_is_an_endpoint_for_as_long_as_the_server_says_so() {
    let backends = backends();
    let server = DnsServer::start(names(&[SECOND, FIRST]));
    let port = free_port();
    let cluster = named(Discovery::StrictDns, backends[0].address.port());
    let edge = Edge::start_with(snap(port, cluster), options(&server));
    assert!(
        eventually(|| endpoints(&edge) == [FIRST, SECOND]),
        "{:?}",
        endpoints(&edge)
    );
    let mut client = Client::connect(port);
    let mut told: Vec<_> = (0..4)
        .map(|_| client.get("a", "/").unwrap().told("backend"))
        .collect();
    told.sort();
    assert_eq!(
        told,
        ["first", "first", "second", "second"],
        "one after the other"
    );
    server.says(names(&[SECOND]));
    assert!(eventually(|| endpoints(&edge) == [SECOND]));
    for _ in 0..4 {
        assert_eq!(client.get("a", "/").unwrap().told("backend"), "second");
    }
}

#[test]
fn the_last_good_answer_stays_in_use_while_no_server_answers() {
    let backends = backends();
    let server = DnsServer::start(names(&[FIRST]));
    let port = free_port();
    let cluster = named(Discovery::StrictDns, backends[0].address.port());
    let edge = Edge::start_with(snap(port, cluster), options(&server));
    assert!(eventually(|| endpoints(&edge) == [FIRST]));
    for gone in [Zone::Silent, Zone::Failing] {
        let failed = edge.metric("edge_dns_lookups_total", &["result=\"failed\""]);
        server.says(gone);
        let has_failed = || edge.metric("edge_dns_lookups_total", &["result=\"failed\""]) > failed;
        assert!(eventually(has_failed));
        edge.expect_metric("edge_dns_names_stale", &[], 1);
        assert_eq!(get(port, "a", "/").told("backend"), "first");
    }
    // A change of the configuration does not forget it either.
    let cluster = named(Discovery::StrictDns, backends[0].address.port());
    let timeout = Duration::from_secs(2);
    edge.apply(snap(
        port,
        Cluster {
            connect_timeout: timeout,
            ..cluster
        },
    ));
    assert_eq!(get(port, "a", "/").told("backend"), "first");
    server.says(names(&[SECOND]));
    assert!(eventually(|| endpoints(&edge) == [SECOND]), "it is asked again");
    edge.expect_metric("edge_dns_names_stale", &[], 0);
    edge.expect_flagged("-", 3);
}

#[test]
fn a_name_that_is_gone_or_was_never_there_has_no_endpoint() {
    let backends = backends();
    let server = DnsServer::start(names(&[FIRST]));
    let port = free_port();
    let cluster = named(Discovery::StrictDns, backends[0].address.port());
    let edge = Edge::start_with(snap(port, cluster), options(&server));
    assert!(eventually(|| endpoints(&edge) == [FIRST]));
    server.says(Zone::Names(vec![]));
    assert!(eventually(|| endpoints(&edge).is_empty()));
    let reply = get(port, "a", "/");
    assert_eq!((reply.status, reply.text()), (503, "no healthy upstream"));
    edge.expect_flagged("DF,UH", 1);
}

#[test]
fn a_connection_for_a_name_that_nobody_knows_is_closed() {
    let server = DnsServer::start(Zone::Names(vec![]));
    let port = free_port();
    let snap = listen(port, &[("web", 1)]).with(named(Discovery::StrictDns, 80));
    let edge = Edge::start_with(snap, options(&server));
    // Closed, or reset as what was sent is not read.
    let _ = exchange(port, b"hello");
    edge.expect_metric(
        "istio_tcp_connections_closed_total",
        &["response_flags=\"DF,UH\""],
        1,
    );
}

#[test]
fn no_request_waits_for_a_name_server() {
    let server = DnsServer::start(Zone::Silent);
    let port = free_port();
    let edge = Edge::start_with(snap(port, named(Discovery::StrictDns, 80)), options(&server));
    let before = server.asked();
    for _ in 0..20 {
        assert_eq!(get(port, "a", "/").status, 503);
    }
    edge.expect_flagged("DF,UH", 20);
    assert!(server.asked() < before + 20, "requests ask nobody");
}

#[test]
fn names_are_resolved_before_a_configuration_that_has_them_is_applied() {
    let backends = backends();
    let server = DnsServer::start(names(&[FIRST]));
    let port = free_port();
    let edge = Edge::start_with(Snap::simple(port, &[]), options(&server));
    let next = snap(port, named(Discovery::StrictDns, backends[0].address.port()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(edge.proxy.resolving(&next.clone().build()));
    edge.apply(next);
    assert_eq!(endpoints(&edge), [FIRST]);
    assert_eq!(get(port, "a", "/").told("backend"), "first");
}

#[test]
fn round_robin_by_name_takes_the_first_address_of_each_answer() {
    let backends = backends();
    let server = DnsServer::start(names(&[FIRST, SECOND, NOBODY]));
    let port = free_port();
    let cluster = named(Discovery::LogicalDns, backends[0].address.port());
    let edge = Edge::start_with(snap(port, cluster), options(&server));
    assert!(eventually(|| endpoints(&edge) == [FIRST]));
    assert_eq!(get(port, "a", "/").told("backend"), "first");
    server.says(names(&[SECOND, FIRST]));
    assert!(eventually(|| endpoints(&edge) == [SECOND]));
    assert_eq!(get(port, "a", "/").told("backend"), "second");
}
