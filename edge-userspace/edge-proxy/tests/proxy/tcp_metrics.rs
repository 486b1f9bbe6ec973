//! What metrics tell of connections that are forwarded as bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use edge_model::{
    CircuitBreakers, Cluster, ConnectionPool, ListenerProtocol, ServerTls, TlsServer, TlsService,
};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use crate::support::{
    Authority, Backend, Edge, Snap, client_config, connect, free_port, get, refusing, service, tls_server,
};
use crate::tcp::{dial, echo, exchange, listen, tcp_route};

const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const RECEIVED: &str = "istio_tcp_received_bytes_total";
const SENT: &str = "istio_tcp_sent_bytes_total";

/// Opened and closed connections, and bytes from and to clients, under response flags.
#[track_caller]
fn expect(edge: &Edge, flags: &str, expected: [u64; 4]) {
    let flags = format!("response_flags=\"{flags}\"");
    for (name, expected) in [OPENED, CLOSED, RECEIVED, SENT].into_iter().zip(expected) {
        edge.expect_metric(name, &[&flags], expected);
    }
}

fn tls(port: u16, server: TlsServer) -> Snap {
    Snap::default().listen_with(port, ListenerProtocol::Tls(vec![Arc::new(server)]))
}

#[test]
fn connections_have_istios_labels() {
    let db = echo("db:");
    let port = free_port();
    let edge = Edge::start(listen(port, &[("db", 1)]).with(service("db", &[db.address])));
    assert_eq!(exchange(port, b"hello").unwrap(), b"db:hello");
    expect(&edge, "-", [1, 1, 5, 8]);
    let expected: BTreeMap<_, _> = [
        ("reporter", "source"),
        ("source_workload", "edge"),
        ("source_canonical_service", "edge"),
        ("source_canonical_revision", "unknown"),
        ("source_workload_namespace", "unknown"),
        ("source_principal", "unknown"),
        ("source_app", "edge"),
        ("source_version", "unknown"),
        ("source_cluster", "unknown"),
        ("destination_workload", "db-v1"),
        ("destination_workload_namespace", "shop"),
        ("destination_principal", "unknown"),
        ("destination_app", "db"),
        ("destination_version", "v1"),
        ("destination_service", "db.shop.svc.cluster.local"),
        ("destination_service_name", "db"),
        ("destination_service_namespace", "shop"),
        ("destination_canonical_service", "db"),
        ("destination_canonical_revision", "v1"),
        ("destination_cluster", "unknown"),
        ("request_protocol", "tcp"),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ]
    .into();
    for name in [OPENED, CLOSED, RECEIVED, SENT] {
        let line = edge.lines(name);
        let labels = line.split_once('{').unwrap().1.split_once('}').unwrap().0;
        let pairs = labels.split(',').map(|pair| pair.split_once('=').unwrap());
        let labels: BTreeMap<_, _> = pairs.map(|(key, value)| (key, value.trim_matches('"'))).collect();
        assert_eq!(labels, expected, "{name}");
    }
}

#[test]
fn every_byte_is_counted_however_many_there_are() {
    const CONNECTIONS: u64 = 3;
    let db = echo("db:");
    let port = free_port();
    let edge = Edge::start(listen(port, &[("db", 1)]).with(service("db", &[db.address])));
    let sent = vec![7; 3_000_001];
    for _ in 0..CONNECTIONS {
        assert_eq!(exchange(port, &sent).unwrap().len(), sent.len() + 3);
    }
    let bytes = sent.len() as u64 * CONNECTIONS;
    expect(
        &edge,
        "-",
        [CONNECTIONS, CONNECTIONS, bytes, bytes + 3 * CONNECTIONS],
    );
}

#[test]
fn bytes_of_a_connection_are_seen_while_it_lasts() {
    let db = echo("db:");
    let port = free_port();
    let edge = Edge::start(listen(port, &[("db", 1)]).with(service("db", &[db.address])));
    let mut client = dial(port);
    client.write_all(&[7; 1000]).unwrap();
    expect(&edge, "-", [1, 0, 1000, 3]);
    client.write_all(&[7; 234]).unwrap();
    expect(&edge, "-", [1, 0, 1234, 3]);
    client.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    expect(&edge, "-", [1, 1, 1234, 1237]);
}

#[test]
fn where_tls_ends_here_bytes_are_those_inside() {
    let (own, db) = (Authority::new("own"), echo("db:"));
    let inside = TlsService::Tcp {
        tls: ServerTls {
            alpn: vec![],
            ..ServerTls::simple(Some(own.issue(&["db.example.com"]).certificate))
        },
        route: tcp_route(&[("db", 1)]),
    };
    let port = free_port();
    let snap = tls(port, tls_server(&["db.example.com"], inside));
    let edge = Edge::start(snap.with(service("db", &[db.address])));
    let config = Arc::new(client_config(&own.roots()));
    let (mut client, _) = connect(port, "db.example.com", &config).unwrap();
    client.write([7; 100_000]).unwrap();
    expect(&edge, "-", [1, 0, 100_000, 3]);
    drop(client);
    expect(&edge, "-", [1, 1, 100_000, 3]);
}

#[test]
fn where_tls_passes_through_bytes_are_those_on_the_wire() {
    let db = echo("db:");
    let passed = TlsService::Passthrough {
        route: tcp_route(&[("db", 1)]),
    };
    let port = free_port();
    let snap = tls(port, tls_server(&["db.example.com"], passed));
    let edge = Edge::start(snap.with(service("db", &[db.address])));
    let hello = |name: &str| {
        let config = client_config(&Authority::new("none").roots());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut hello = Vec::new();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    let sent = hello("db.example.com");
    let got = exchange(port, &sent).unwrap();
    assert!(got.starts_with(b"db:") && got.ends_with(&sent));
    let length = sent.len() as u64;
    expect(&edge, "-", [1, 1, length, length + 3]);
    // Whom no server takes was not forwarded.
    let _ = exchange(port, &hello("else.example.com"));
    edge.expect_metric("edge_tls_handshakes_failed_total", &[], 1);
    assert_eq!(edge.metric(OPENED, &[]), 1.0);
}

#[test]
fn flags_say_why_a_connection_came_to_no_endpoint() {
    let destination = |name: &str| format!("destination_service_name=\"{name}\"");
    for (name, to, flags, destination) in [
        (
            "an endpoint that refuses",
            &[("dead", 1)][..],
            "URX,UF",
            destination("dead"),
        ),
        ("no endpoint", &[("empty", 1)], "UH", destination("empty")),
        ("no such cluster", &[("none", 1)], "NC", destination("unknown")),
        ("no destination", &[], "NR", destination("unknown")),
    ] {
        let port = free_port();
        let snap = listen(port, to)
            .with(service("dead", &[refusing()]))
            .with(service("empty", &[]));
        let edge = Edge::start(snap);
        // Closed, or reset as what was sent is not read.
        let _ = exchange(port, b"hello");
        expect(&edge, flags, [1, 1, 0, 0]);
        assert_eq!(edge.metric(OPENED, &[&destination]), 1.0, "{name}");
    }
}

#[test]
fn who_finds_as_many_connections_as_there_may_be_is_an_overflow() {
    let db = echo("db:");
    let port = free_port();
    let cluster = Cluster {
        circuit_breakers: CircuitBreakers {
            max_connections: 1,
            ..CircuitBreakers::default()
        },
        ..service("db", &[db.address])
    };
    let edge = Edge::start(listen(port, &[("db", 1)]).with(cluster));
    let mut first = dial(port);
    first.read_exact(&mut [0; 3]).unwrap();
    let _ = exchange(port, b"hello");
    expect(&edge, "UO", [1, 1, 0, 0]);
    expect(&edge, "-", [1, 0, 0, 3]);
}

#[test]
fn however_a_connection_ends_it_is_counted_as_closed() {
    let db = echo("db:");
    let port = free_port();
    let short = Some(Duration::from_millis(100));
    for pool in [
        ConnectionPool {
            tcp_idle_timeout: short,
            ..ConnectionPool::default()
        },
        ConnectionPool {
            max_connection_duration: short,
            ..ConnectionPool::default()
        },
    ] {
        let cluster = Cluster {
            pool,
            ..service("db", &[db.address])
        };
        let edge = Edge::start(listen(port, &[("db", 1)]).with(cluster));
        let mut client = dial(port);
        client.write_all(b"hello").unwrap();
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert_eq!(got, b"db:");
        expect(&edge, "-", [1, 1, 5, 3]);
    }
}

#[test]
fn requests_are_no_connections_of_bytes() {
    let web = Backend::start("web");
    let port = free_port();
    let edge = Edge::start(Snap::simple(port, &[web.address]));
    assert_eq!(get(port, "a", "/").status, 200);
    edge.expect_flagged("-", 1);
    assert_eq!(edge.lines("istio_tcp"), "");
}
