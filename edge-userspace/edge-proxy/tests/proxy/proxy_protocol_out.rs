//! The PROXY protocol to endpoints (DestinationRule `proxyProtocol`): in front of everything else, and never over a
//! connection that another client's requests go over.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_model::{
    Cluster, Forward, Fraction, Kind, ListenerProtocol, Mirror, ObjectRef, Prefix, ProxyProtocolVersion,
    RouteAction, ServerVerification, TcpRoute, UpstreamTls, WeightedCluster,
};
use edge_proxy::{ProxyOptions, ProxyProtocolIn};

use crate::support::{
    Authority, Client, Edge, Issued, RawBackend, Snap, cluster, eventually, forward, free_port, prefix,
    route, service,
};

/// How a header of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Headers that a backend was given, in text: the line of version 1, or `command source destination` of version 2.
type Headers = Arc<Mutex<Vec<String>>>;

/// Reads the header in front of a connection, and not a byte more.
fn read_header(stream: &mut TcpStream, version: ProxyProtocolVersion) -> String {
    match version {
        ProxyProtocolVersion::V1 => {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            String::from_utf8(line).unwrap().trim_end().to_owned()
        }
        ProxyProtocolVersion::V2 => {
            let mut head = [0; 16];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head[..12], SIGNATURE);
            let mut addresses = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
            stream.read_exact(&mut addresses).unwrap();
            if head[12] == 0x20 {
                return "local".to_owned();
            }
            assert_eq!((head[12], head[13], addresses.len()), (0x21, 0x11, 12));
            let address = |at: usize| {
                let octets: [u8; 4] = addresses[at..at + 4].try_into().unwrap();
                std::net::Ipv4Addr::from(octets)
            };
            let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
            format!("proxy {}:{} {}:{}", address(0), port(8), address(4), port(10))
        }
    }
}

/// What version 1 and 2 say of a client's connection to a port.
fn told(version: ProxyProtocolVersion, client: SocketAddr, local: SocketAddr) -> String {
    match version {
        ProxyProtocolVersion::V1 => format!(
            "PROXY TCP4 {} {} {} {}",
            client.ip(),
            local.ip(),
            client.port(),
            local.port()
        ),
        ProxyProtocolVersion::V2 => format!("proxy {client} {local}"),
    }
}

/// Reads a header, then answers each request with 200.
fn http_backend(version: ProxyProtocolVersion) -> (RawBackend, Headers) {
    let headers = Headers::default();
    let seen = Arc::clone(&headers);
    let backend = RawBackend::start(move |mut stream, _| {
        let header = read_header(&mut stream, version);
        seen.lock().unwrap().push(header);
        while !RawBackend::read_head(&mut stream).is_empty() {
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .is_err()
            {
                return;
            }
        }
    });
    (backend, headers)
}

fn announced(name: &str, address: SocketAddr, version: ProxyProtocolVersion) -> Cluster {
    Cluster {
        proxy_protocol: Some(version),
        ..service(name, &[address])
    }
}

#[test]
fn a_client_s_requests_share_a_connection_that_no_other_client_s_go_over() {
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        let (backend, headers) = http_backend(version);
        let port = free_port();
        let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]);
        let _edge = Edge::start_with(
            snap.with(announced("web", backend.address, version)),
            ProxyOptions::new(1),
        );
        let mut clients = [Client::connect(port), Client::connect(port)];
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.get("a.com", "/").unwrap().status, 200);
            }
        }
        let expected: Vec<_> = clients
            .iter()
            .map(|client| {
                let stream = client.stream();
                told(version, stream.local_addr().unwrap(), stream.peer_addr().unwrap())
            })
            .collect();
        assert_eq!(*headers.lock().unwrap(), expected, "{version:?}");
        // With the client goes what was opened for it.
        let [first, second] = clients;
        drop(first);
        assert!(eventually(|| backend.open() == 1));
        drop(second);
        assert!(eventually(|| backend.open() == 0));
    }
}

#[test]
fn the_client_of_a_proxy_in_front_is_who_endpoints_hear_of() {
    let (backend, headers) = http_backend(ProxyProtocolVersion::V1);
    let port = free_port();
    let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]);
    let options = ProxyOptions {
        proxy_protocol: ProxyProtocolIn {
            from: vec!["127.0.0.0/8".parse::<Prefix>().unwrap()],
            ports: vec![],
        },
        ..ProxyOptions::new(1)
    };
    let _edge = Edge::start_with(
        snap.with(announced("web", backend.address, ProxyProtocolVersion::V1)),
        options,
    );
    let mut client = Client::connect(port);
    let line = "PROXY TCP6 2001:db8::9 2001:db8::1 777 443";
    client.write(format!("{line}\r\n")).unwrap();
    assert_eq!(client.get("a.com", "/").unwrap().status, 200);
    assert_eq!(*headers.lock().unwrap(), [line]);
}

#[test]
fn places_of_a_circuit_are_taken_from_idle_connections_of_other_clients() {
    let (backend, headers) = http_backend(ProxyProtocolVersion::V2);
    let port = free_port();
    let mut cluster = announced("web", backend.address, ProxyProtocolVersion::V2);
    cluster.circuit_breakers.max_connections = 1;
    let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))]);
    let _edge = Edge::start_with(snap.with(cluster), ProxyOptions::new(1));
    let mut clients = [Client::connect(port), Client::connect(port)];
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get("a.com", "/").unwrap().status, 200);
        }
    }
    assert_eq!(headers.lock().unwrap().len(), 4);
    assert!(eventually(|| backend.open() == 1));
}

#[test]
fn copies_for_mirrors_are_the_gateway_s_own() {
    let (web, _) = http_backend(ProxyProtocolVersion::V2);
    let (mirror, headers) = http_backend(ProxyProtocolVersion::V2);
    let port = free_port();
    let RouteAction::Forward(to) = forward(&[("web", 1)]) else {
        unreachable!("it forwards")
    };
    let action = RouteAction::Forward(Forward {
        mirrors: vec![Mirror {
            cluster: cluster("mirror"),
            share: Fraction::ALWAYS,
        }],
        ..to
    });
    let snap = Snap::new(port, vec![route(prefix("/"), action)])
        .with(announced("web", web.address, ProxyProtocolVersion::V2))
        .with(announced("mirror", mirror.address, ProxyProtocolVersion::V2));
    let _edge = Edge::start(snap);
    assert_eq!(Client::connect(port).get("a.com", "/").unwrap().status, 200);
    assert!(eventually(|| *headers.lock().unwrap() == ["local"]));
}

/// Reads a header, then everything until the end, and gives both back over TLS if a certificate is given.
fn tls_backend(issued: &Issued, version: ProxyProtocolVersion) -> (RawBackend, Headers) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = issued.chain_and_key();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (config, headers) = (Arc::new(config), Headers::default());
    let seen = Arc::clone(&headers);
    let backend = RawBackend::start(move |mut stream, _| {
        let header = read_header(&mut stream, version);
        seen.lock().unwrap().push(header);
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            if line == "\r\n" {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntls";
                stream.get_mut().write_all(answer).unwrap();
            }
            line.clear();
        }
    });
    (backend, headers)
}

fn tls_to(authority: &Authority) -> Arc<UpstreamTls> {
    Arc::new(UpstreamTls {
        certificate: None,
        sni: Some("web.internal".to_owned()),
        verify: ServerVerification::Verify {
            ca_pem: Some(authority.pem().into()),
            crl_pem: Vec::new().into(),
            subject_alt_names: vec![],
        },
        broken: None,
    })
}

#[test]
fn the_header_stands_in_front_of_the_handshake() {
    let authority = Authority::new("own");
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        let (backend, headers) = tls_backend(&authority.issue(&["web.internal"]), version);
        let (port, bytes) = (free_port(), free_port());
        let cluster = Cluster {
            tls: Some(tls_to(&authority)),
            ..announced("web", backend.address, version)
        };
        let snap = Snap::new(port, vec![route(prefix("/"), forward(&[("web", 1)]))])
            .listen_with(bytes, ListenerProtocol::Tcp(tcp_route("web")))
            .with(cluster);
        let _edge = Edge::start(snap);
        let mut expected = Vec::new();
        for port in [port, bytes] {
            let mut client = Client::connect(port);
            let reply = client.get("a.com", "/").unwrap();
            assert_eq!((reply.status, reply.text()), (200, "tls"));
            let stream = client.stream();
            expected.push(told(
                version,
                stream.local_addr().unwrap(),
                stream.peer_addr().unwrap(),
            ));
        }
        assert_eq!(*headers.lock().unwrap(), expected, "{version:?}");
    }
}

fn tcp_route(name: &str) -> Arc<TcpRoute> {
    Arc::new(TcpRoute {
        object: Arc::new(ObjectRef {
            kind: Kind::VirtualService,
            namespace: "shop".into(),
            name: "db".into(),
        }),
        rule: 0,
        destinations: vec![WeightedCluster {
            cluster: cluster(name),
            weight: 1,
        }],
    })
}

#[test]
fn forwarded_bytes_come_behind_the_header() {
    for version in [ProxyProtocolVersion::V1, ProxyProtocolVersion::V2] {
        let headers = Headers::default();
        let seen = Arc::clone(&headers);
        let backend = RawBackend::start(move |mut stream, _| {
            let header = read_header(&mut stream, version);
            seen.lock().unwrap().push(header);
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let port = free_port();
        let snap = Snap::default().listen_with(port, ListenerProtocol::Tcp(tcp_route("db")));
        let _edge = Edge::start(snap.with(announced("db", backend.address, version)));
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let expected = told(version, stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        stream.write_all(b"abc").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
        assert_eq!(*headers.lock().unwrap(), [expected]);
    }
}
