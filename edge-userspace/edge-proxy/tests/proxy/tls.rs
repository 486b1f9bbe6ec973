//! TLS: servers by SNI.

use std::sync::Arc;
use std::time::Duration;

use edge_model::{
    Certificate, ListenerProtocol, Route, RouteTable, ServerTls, TlsServer, TlsService, TlsVersion,
};
use edge_proxy::{Bounds, ProxyOptions, Timeouts};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::support::{
    Backend, Client, Edge, Snap, client_config, connect, direct, eventually, forward, free_port, prefix,
    route, service, tls_server, virtual_host,
};

/// A certificate for a name, and the client's trust in it.
struct Identity {
    certificate: Arc<Certificate>,
    roots: RootCertStore,
}

fn identity(name: &str) -> Identity {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    Identity {
        certificate: Arc::new(Certificate {
            chain_pem: cert.pem().into_bytes(),
            key_pem: signing_key.serialize_pem().into_bytes(),
            ocsp_staple: None,
        }),
        roots,
    }
}

/// A server that answers everything with a text.
fn server(hosts: &[&str], identity: Option<&Identity>, text: &'static str) -> TlsServer {
    let routes = vec![route(prefix("/"), direct(200, text))];
    let tls = ServerTls::simple(identity.map(|identity| Arc::clone(&identity.certificate)));
    let routes = table("*", routes);
    tls_server(hosts, TlsService::Http { tls, routes })
}

fn table(domain: &str, routes: Vec<Route>) -> Arc<RouteTable> {
    Arc::new(RouteTable::new(
        "https.443",
        [Arc::new(virtual_host(domain, routes))],
    ))
}

fn listen(port: u16, servers: Vec<TlsServer>) -> Snap {
    let servers = servers.into_iter().map(Arc::new).collect();
    Snap::default().listen_with(port, ListenerProtocol::Tls(servers))
}

#[track_caller]
fn answer(port: u16, name: &str, identity: &Identity) -> String {
    let (mut client, _) = connect(port, name, &Arc::new(client_config(&identity.roots))).unwrap();
    client.get(name, "/").unwrap().text().to_owned()
}

/// What rustls says when there is no handshake.
#[track_caller]
fn refusal(port: u16, name: &str, config: ClientConfig) -> String {
    match connect(port, name, &Arc::new(config)) {
        Ok(_) => panic!("the handshake for {name} was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_server_name_picks_certificate_and_routes() {
    let (exact, wild) = (identity("a.foo.com"), identity("*.foo.com"));
    let port = free_port();
    let _edge = Edge::start(listen(
        port,
        vec![
            server(&["*.foo.com"], Some(&wild), "wild"),
            server(&["a.foo.com"], Some(&exact), "exact"),
        ],
    ));
    assert_eq!(answer(port, "a.foo.com", &exact), "exact");
    assert_eq!(answer(port, "b.foo.com", &wild), "wild");
}

#[test]
fn an_unknown_name_or_none_is_closed_without_a_certificate() {
    let known = identity("a.com");
    let port = free_port();
    let edge = Edge::start(listen(port, vec![server(&["a.com"], Some(&known), "a")]));
    for name in ["b.com", "127.0.0.1"] {
        // A certificate that was shown would fail for its name, and say so.
        let refusal = refusal(port, name, client_config(&known.roots));
        assert!(!refusal.contains("certificate"), "{refusal}");
    }
    edge.expect_metric(
        "edge_tls_handshakes_failed_total",
        &["reason=\"unknown_name\""],
        2,
    );
    assert_eq!(answer(port, "a.com", &known), "a");
}

#[test]
fn a_missing_or_broken_certificate_closes_its_own_names_only() {
    let good = identity("good.com");
    let broken = Identity {
        certificate: Arc::new(Certificate {
            chain_pem: b"not pem".to_vec(),
            key_pem: b"nor this".to_vec(),
            ocsp_staple: None,
        }),
        roots: good.roots.clone(),
    };
    let port = free_port();
    let edge = Edge::start(listen(
        port,
        vec![
            server(&["none.com"], None, "none"),
            server(&["broken.com"], Some(&broken), "broken"),
            server(&["good.com"], Some(&good), "good"),
        ],
    ));
    refusal(port, "none.com", client_config(&good.roots));
    refusal(port, "broken.com", client_config(&good.roots));
    assert_eq!(answer(port, "good.com", &good), "good");
    edge.expect_metric(
        "edge_tls_handshakes_failed_total",
        &["reason=\"no_certificate\""],
        2,
    );
}

#[test]
fn the_upstream_learns_that_the_client_came_by_https() {
    let (web, a) = (Backend::start("web"), identity("a.com"));
    let port = free_port();
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let tls = TlsServer {
        service: TlsService::Http {
            tls: ServerTls::simple(Some(Arc::clone(&a.certificate))),
            routes: table("a.com", routes),
        },
        ..server(&["a.com"], None, "")
    };
    let _edge = Edge::start(listen(port, vec![tls]).with(service("web", &[web.address])));
    let (mut client, _) = connect(port, "a.com", &Arc::new(client_config(&a.roots))).unwrap();
    let reply = client.get("a.com", "/").unwrap();
    assert_eq!(reply.told("x-forwarded-proto"), "https");
    client
        .write(format!(
            "POST /echo HTTP/1.1\r\nhost: a.com\r\ncontent-length: {}\r\n\r\n",
            1 << 20
        ))
        .unwrap();
    client.write(vec![b'z'; 1 << 20]).unwrap();
    assert_eq!(client.read("POST").unwrap().body.len(), 1 << 20);
}

#[test]
fn versions_and_protocols_outside_of_the_servers_are_refused() {
    let a = identity("a.com");
    let port = free_port();
    let only_1_3 = TlsServer {
        service: TlsService::Http {
            tls: ServerTls {
                min_version: TlsVersion::V1_3,
                ..ServerTls::simple(Some(Arc::clone(&a.certificate)))
            },
            routes: table("a.com", vec![]),
        },
        ..server(&["a.com"], None, "")
    };
    let _edge = Edge::start(listen(port, vec![only_1_3]));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let only_1_2 = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(a.roots.clone())
        .with_no_client_auth();
    assert!(refusal(port, "a.com", only_1_2).contains("ProtocolVersion"));
    let mut neither = client_config(&a.roots);
    neither.alpn_protocols = vec![b"h3".to_vec()];
    assert!(refusal(port, "a.com", neither).contains("NoApplicationProtocol"));
    let mut both = client_config(&a.roots);
    both.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let (client, _) = connect(port, "a.com", &Arc::new(both)).unwrap();
    assert_eq!(client.stream_ref().conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn a_session_is_resumed_on_whichever_worker() {
    let a = identity("a.com");
    let port = free_port();
    let edge = Edge::start(listen(port, vec![server(&["a.com"], Some(&a), "a")]));
    let config = Arc::new(client_config(&a.roots));
    let mut kinds = Vec::new();
    for _ in 0..8 {
        let (mut client, kind) = connect(port, "a.com", &config).unwrap();
        client.get("a.com", "/").unwrap();
        kinds.push(kind);
        // A reload with the same certificate keeps the tickets good.
        edge.apply(listen(port, vec![server(&["a.com"], Some(&a), "a")]));
    }
    assert_eq!(kinds[0], HandshakeKind::Full);
    assert!(
        kinds[1..].iter().all(|kind| *kind == HandshakeKind::Resumed),
        "{kinds:?}"
    );
}

#[test]
fn a_certificate_is_rotated_without_a_dropped_connection() {
    let (old, new) = (identity("a.com"), identity("a.com"));
    let port = free_port();
    let edge = Edge::start(listen(port, vec![server(&["a.com"], Some(&old), "old")]));
    let (mut established, _) = connect(port, "a.com", &Arc::new(client_config(&old.roots))).unwrap();
    assert_eq!(established.get("a.com", "/").unwrap().text(), "old");
    edge.apply(listen(port, vec![server(&["a.com"], Some(&new), "new")]));
    assert_eq!(answer(port, "a.com", &new), "new");
    let reply = established.get("a.com", "/").unwrap();
    assert_eq!((reply.text(), reply.header("connection")), ("new", None));
}

#[test]
fn plain_text_and_slow_handshakes_are_cut() {
    let a = identity("a.com");
    let port = free_port();
    let options = ProxyOptions {
        timeouts: Timeouts {
            handshake: Duration::from_millis(300),
            ..Timeouts::default()
        },
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(listen(port, vec![server(&["a.com"], Some(&a), "a")]), options);
    let mut plain = Client::connect(port);
    assert!(plain.get("a.com", "/").is_err());
    let mut slow = Client::connect(port);
    slow.write([0x16, 0x03, 0x01]).unwrap();
    assert!(slow.is_at_end());
    assert!(eventually(|| edge.proxy.workers()[0].connections == 0));
    edge.expect_metric("edge_tls_handshakes_failed_total", &["reason=\"timeout\""], 1);
    edge.expect_metric("edge_tls_handshakes_failed_total", &["reason=\"tls\""], 1);
}

#[test]
fn clients_that_do_not_end_their_handshakes_make_room_for_others() {
    let own = identity("a.com");
    let port = free_port();
    let options = ProxyOptions {
        bounds: Bounds {
            max_connections: 10,
            ..Bounds::default()
        },
        ..ProxyOptions::new(1)
    };
    let edge = Edge::start_with(listen(port, vec![server(&["a.com"], Some(&own), "own")]), options);
    let _mute: Vec<_> = (0..10).map(|_| Client::connect(port)).collect();
    let config = Arc::new(client_config(&own.roots));
    assert!(eventually(|| connect(port, "a.com", &config).is_ok()));
    edge.expect_metric(
        "edge_downstream_connections_cut_total",
        &["reason=\"crowded out\""],
        1,
    );
}
