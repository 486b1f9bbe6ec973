//! Bytes that are forwarded as they are: `tcp` routes, and TLS that passes through by its server name.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use edge_model::{
    Kind, ListenerProtocol, ObjectRef, RouteTable, ServerTls, TcpRoute, TlsService, WeightedCluster,
};

use crate::support::{
    Authority, Edge, RawBackend, Snap, TlsBackend, client_config, cluster, connect, direct, free_port,
    listener, prefix, refusing, route, service, tls_server, virtual_host,
};

pub(crate) fn tcp_route(destinations: &[(&str, u32)]) -> Arc<TcpRoute> {
    let destinations = destinations.iter().map(|(name, weight)| WeightedCluster {
        cluster: cluster(name),
        weight: *weight,
    });
    Arc::new(TcpRoute {
        object: Arc::new(ObjectRef {
            kind: Kind::VirtualService,
            namespace: "shop".into(),
            name: "db".into(),
        }),
        rule: 0,
        destinations: destinations.collect(),
    })
}

pub(crate) fn listen(port: u16, destinations: &[(&str, u32)]) -> Snap {
    Snap::default().listen_with(port, ListenerProtocol::Tcp(tcp_route(destinations)))
}

/// Says its name, then gives everything back until the client has sent its end, and then its own.
pub(crate) fn echo(name: &'static str) -> RawBackend {
    RawBackend::start(move |mut stream, _| {
        let _ = stream.write_all(name.as_bytes());
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&all);
        }
    })
}

pub(crate) fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// What comes of a connection on which `sent` is sent.
pub(crate) fn exchange(port: u16, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = dial(port);
    stream.write_all(sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}

#[test]
fn bytes_and_the_end_of_either_side_are_passed_on() {
    let db = echo("db:");
    let port = free_port();
    let _edge = Edge::start(listen(port, &[("db", 1)]).with(service("db", &[db.address])));
    let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    let got = exchange(port, &sent).unwrap();
    assert_eq!(got.len(), sent.len() + 3);
    assert!(got.starts_with(b"db:") && got.ends_with(&sent));
}

#[test]
fn connections_are_shared_by_weight() {
    const CONNECTIONS: u32 = 400;
    let (old, new) = (echo("old"), echo("new"));
    let port = free_port();
    let snap = listen(port, &[("old", 3), ("new", 1), ("none", 0)])
        .with(service("old", &[old.address]))
        .with(service("new", &[new.address]));
    let _edge = Edge::start(snap);
    let mut to_new = 0u32;
    for _ in 0..CONNECTIONS {
        match exchange(port, b"").unwrap().as_slice() {
            b"new" => to_new += 1,
            other => assert_eq!(other, b"old"),
        }
    }
    // A quarter of 400 has a standard deviation of 8.7; six of them are left by one run in half a billion.
    assert!((48..=152).contains(&to_new), "{to_new}");
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_and_without_any_the_connection_ends() {
    let db = echo("db");
    let (port, dead) = (free_port(), free_port());
    let snap = listen(port, &[("db", 1)])
        .listen_with(dead, ListenerProtocol::Tcp(tcp_route(&[("dead", 1)])))
        .with(service("db", &[refusing(), db.address]))
        .with(service("dead", &[refusing()]));
    let _edge = Edge::start(snap);
    for _ in 0..6 {
        assert_eq!(exchange(port, b"").unwrap(), b"db");
    }
    assert!(exchange(dead, b"").is_ok_and(|got| got.is_empty()) || exchange(dead, b"").is_err());
}

/// Asks a backend over TLS, through whatever is between.
#[track_caller]
fn ask(port: u16, name: &str, authority: &Authority) -> String {
    let config = Arc::new(client_config(&authority.roots()));
    let (mut client, _) = connect(port, name, &config).unwrap_or_else(|error| panic!("{name}: {error}"));
    client.get(name, "/").unwrap().text().to_owned()
}

#[test]
fn tls_passes_through_to_whom_the_server_name_is_for() {
    let (own, backends) = (Authority::new("own"), Authority::new("backends"));
    let exact = TlsBackend::start("exact", &backends.issue(&["db.example.com"]), None);
    let wild = TlsBackend::start(
        "wild",
        &backends.issue(&["*.example.com", "*.b.example.com"]),
        None,
    );
    let web = own.issue(&["web.example.com"]);
    let passed = |name: &str| TlsService::Passthrough {
        route: tcp_route(&[(name, 1)]),
    };
    let routes = vec![route(prefix("/"), direct(200, "backend: edge\n"))];
    let ended = TlsService::Http {
        tls: ServerTls::simple(Some(Arc::clone(&web.certificate))),
        routes: Arc::new(RouteTable::new(
            "https.443",
            [Arc::new(virtual_host("*", routes))],
        )),
    };
    let servers = vec![
        tls_server(&["*.example.com"], passed("wild")),
        tls_server(&["db.example.com"], passed("exact")),
        tls_server(&["web.example.com"], ended),
    ];
    let port = free_port();
    let servers = servers.into_iter().map(Arc::new).collect();
    let snap = Snap::default()
        .listen_with(port, ListenerProtocol::Tls(servers))
        .with(service("exact", &[exact.backend.address]))
        .with(service("wild", &[wild.backend.address]));
    let edge = Edge::start(snap);
    for (name, authority, expected) in [
        (
            "db.example.com",
            &backends,
            "backend: exact\nsni: db.example.com\n",
        ),
        ("x.example.com", &backends, "backend: wild\nsni: x.example.com\n"),
        (
            "a.b.example.com",
            &backends,
            "backend: wild\nsni: a.b.example.com\n",
        ),
        ("web.example.com", &own, "backend: edge\n"),
    ] {
        let told = ask(port, name, authority);
        assert!(told.starts_with(expected), "{name}: {told}");
    }
    let config = Arc::new(client_config(&backends.roots()));
    for name in ["example.com", "db.example.org"] {
        assert!(connect(port, name, &config).is_err(), "{name}");
    }
    edge.expect_metric(
        "edge_tls_handshakes_failed_total",
        &["reason=\"unknown_name\""],
        2,
    );
}

#[test]
fn a_client_hello_that_comes_byte_by_byte_is_waited_for() {
    let backends = Authority::new("backends");
    let db = TlsBackend::start("db", &backends.issue(&["db.example.com"]), None);
    let port = free_port();
    let passed = TlsService::Passthrough {
        route: tcp_route(&[("db", 1)]),
    };
    let servers = vec![Arc::new(tls_server(&["db.example.com"], passed))];
    let snap = Snap::default().listen_with(port, ListenerProtocol::Tls(servers));
    let _edge = Edge::start(snap.with(service("db", &[db.backend.address])));
    let slow = slowed(port);
    let told = ask(slow.port(), "db.example.com", &backends);
    assert!(told.starts_with("backend: db\n"), "{told}");
}

/// A port of a go-between that sends the first bytes of its one client one by one.
fn slowed(port: u16) -> SocketAddr {
    let listener = listener("127.0.0.1:0".parse().unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut edge = dial(port);
        edge.set_nodelay(true).unwrap();
        let (mut back, mut to_client) = (edge.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut to_client));
        let mut first = [0; 64];
        client.read_exact(&mut first).unwrap();
        for byte in first {
            edge.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = std::io::copy(&mut client, &mut edge);
    });
    address
}

#[test]
fn tls_may_end_here_with_bytes_inside() {
    let own = Authority::new("own");
    let db = RawBackend::start(|mut stream, _| {
        let head = RawBackend::read_head(&mut stream);
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
    });
    let service_of = TlsService::Tcp {
        tls: ServerTls {
            alpn: vec![],
            ..ServerTls::simple(Some(own.issue(&["db.example.com"]).certificate))
        },
        route: tcp_route(&[("db", 1)]),
    };
    let port = free_port();
    let servers = vec![Arc::new(tls_server(&["db.example.com"], service_of))];
    let snap = Snap::default().listen_with(port, ListenerProtocol::Tls(servers));
    let _edge = Edge::start(snap.with(service("db", &[db.address])));
    let told = ask(port, "db.example.com", &own);
    assert_eq!(
        told, "GET / HTTP/1.1\r\nhost: db.example.com\r\n\r\n",
        "nothing is added"
    );
}
