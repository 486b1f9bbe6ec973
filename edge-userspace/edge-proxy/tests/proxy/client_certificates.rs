//! TLS servers that look at who the client is, and what they show and refuse themselves.

use std::sync::Arc;

use edge_model::{
    ClientAuth, ListenerProtocol, PeerVerification, RouteTable, ServerTls, TlsServer, TlsService, TlsVersion,
};
use http::{Request, StatusCode};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, SignatureScheme};

use crate::support::{
    Authority, Backend, Edge, Issued, Snap, client_config, connect, direct, forward, free_port, prefix,
    route, service, tls_server, virtual_host,
};

const HOST: &str = "a.com";

fn server(tls: ServerTls) -> TlsServer {
    let routes = vec![route(prefix("/"), forward(&[("web", 1)]))];
    let routes = Arc::new(RouteTable::new(
        "https.443",
        [Arc::new(virtual_host("*", routes))],
    ));
    tls_server(&[HOST], TlsService::Http { tls, routes })
}

fn listen(port: u16, tls: ServerTls, web: &Backend) -> Snap {
    let servers = vec![Arc::new(server(tls))];
    Snap::default()
        .listen_with(port, ListenerProtocol::Tls(servers))
        .with(service("web", &[web.address]))
}

/// Shows one certificate to whoever asks.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn showing(servers: &Authority, shown: Option<&Issued>) -> Arc<ClientConfig> {
    let mut config = client_config(&servers.roots());
    if let Some(issued) = shown {
        config.client_auth_cert_resolver = Arc::new(Shown(issued.certified()));
    }
    Arc::new(config)
}

/// What the backend was told of the client's certificate, when the client was let in at all. With TLS 1.3 the client
/// learns only from its first request that it was not.
fn ask(port: u16, config: &Arc<ClientConfig>) -> Option<String> {
    let (mut client, _) = connect(port, HOST, config).ok()?;
    client
        .write(format!(
            "GET / HTTP/1.1\r\nhost: {HOST}\r\nx-forwarded-client-cert: Hash=forged\r\n\r\n"
        ))
        .ok()?;
    let reply = client.read("GET").ok()?;
    assert_eq!(reply.status, 200);
    Some(reply.told("x-forwarded-client-cert"))
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().unwrap().common.hash_provider.hash(data);
    hash.as_ref().try_into().unwrap()
}

#[test]
fn who_is_let_in_is_what_the_server_asks_for() {
    let (servers, clients, foreign) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("foreign"),
    );
    let own = servers.issue(&[HOST]);
    let (ann, bob, eve) = (
        clients.issue(&["ann", "spiffe://td/ns/shop/sa/ann"]),
        clients.issue(&["bob"]),
        foreign.issue(&["ann"]),
    );
    let base = PeerVerification {
        ca_pem: clients.pem(),
        ..PeerVerification::default()
    };
    let with = |change: &dyn Fn(&mut PeerVerification)| {
        let mut verification = base.clone();
        change(&mut verification);
        Arc::new(verification)
    };
    let any = with(&|_| {});
    let revoked = with(&|wanted| wanted.crl_pem = clients.revoke(&[&bob]));
    let name =
        with(&|wanted| wanted.subject_alt_names = vec!["x".into(), "spiffe://td/ns/shop/sa/ann".into()]);
    let key = with(&|wanted| wanted.spki_hashes = vec![sha256(&ann.public_key)]);
    let hash = with(&|wanted| wanted.certificate_hashes = vec![[0; 32], sha256(&ann.der)]);
    let either = with(&|wanted| {
        wanted.spki_hashes = vec![sha256(&bob.public_key)];
        wanted.certificate_hashes = vec![sha256(&ann.der)];
    });
    let unverified = with(&|wanted| wanted.insecure_skip_verify = true);
    // Whether nobody, Ann, Bob (of the same authority) and Eve (of a foreign one, by Ann's name) are let in.
    let rows: [(&str, ClientAuth, [bool; 4]); 9] = [
        ("SIMPLE", ClientAuth::None, [true, true, true, true]),
        (
            "MUTUAL",
            ClientAuth::Required(Arc::clone(&any)),
            [false, true, true, false],
        ),
        (
            "OPTIONAL_MUTUAL",
            ClientAuth::Optional(any),
            [true, true, true, false],
        ),
        (
            "a revocation list",
            ClientAuth::Required(revoked),
            [false, true, false, false],
        ),
        (
            "subjectAltNames",
            ClientAuth::Required(name),
            [false, true, false, false],
        ),
        (
            "verifyCertificateSpki",
            ClientAuth::Required(key),
            [false, true, false, false],
        ),
        (
            "verifyCertificateHash",
            ClientAuth::Required(hash),
            [false, true, false, false],
        ),
        (
            "one of both hashes",
            ClientAuth::Required(either),
            [false, true, true, false],
        ),
        (
            "insecureSkipVerify",
            ClientAuth::Required(unverified),
            [false, true, true, true],
        ),
    ];
    let web = Backend::start("web");
    for (name, client_auth, expected) in rows {
        let port = free_port();
        let tls = ServerTls {
            client_auth,
            ..ServerTls::simple(Some(Arc::clone(&own.certificate)))
        };
        let _edge = Edge::start(listen(port, tls, &web));
        let shown = [None, Some(&ann), Some(&bob), Some(&eve)];
        let let_in = shown.map(|shown| ask(port, &showing(&servers, shown)).is_some());
        assert_eq!(let_in, expected, "{name}");
    }
}

#[test]
fn the_backend_is_told_of_the_certificate_as_istio_does_and_of_no_forged_one() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let own = servers.issue(&[HOST]);
    let ann = clients.issue(&["ann.example.com", "spiffe://td/ns/shop/sa/ann"]);
    let verification = Arc::new(PeerVerification {
        ca_pem: clients.pem(),
        ..PeerVerification::default()
    });
    let web = Backend::start("web");
    let port = free_port();
    let tls = ServerTls {
        client_auth: ClientAuth::Optional(verification),
        ..ServerTls::simple(Some(own.certificate))
    };
    let _edge = Edge::start(listen(port, tls, &web));
    let told = ask(port, &showing(&servers, Some(&ann))).unwrap();
    let hash: String = sha256(&ann.der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        told.starts_with(&format!("Hash={hash};Cert=\"-----BEGIN%20CERTIFICATE-----%0A")),
        "{told}"
    );
    assert!(
        told.ends_with(
            ";Subject=\"O=Shop,CN=ann.example.com\";URI=spiffe://td/ns/shop/sa/ann;DNS=ann.example.com"
        ),
        "{told}"
    );
    assert_eq!(ask(port, &showing(&servers, None)).unwrap(), "");
}

/// A client of TLS 1.2 with nothing but RSA suites, or any client.
fn speaking(servers: &Authority, rsa_only: bool) -> Arc<ClientConfig> {
    if !rsa_only {
        return Arc::new(client_config(&servers.roots()));
    }
    let mut provider = rustls::crypto::ring::default_provider();
    let wanted = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
    provider.cipher_suites.retain(|suite| suite.suite() == wanted);
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(servers.roots())
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn a_server_with_both_kinds_of_keys_shows_each_client_what_it_can_use() {
    let servers = Authority::new("servers");
    let (ecdsa, rsa) = (servers.issue(&[HOST]), servers.issue_rsa(&[HOST]));
    let web = Backend::start("web");
    for certificates in [
        vec![Arc::clone(&rsa.certificate), Arc::clone(&ecdsa.certificate)],
        vec![Arc::clone(&ecdsa.certificate), Arc::clone(&rsa.certificate)],
    ] {
        let port = free_port();
        let tls = ServerTls {
            certificates,
            ..ServerTls::simple(None)
        };
        let _edge = Edge::start(listen(port, tls, &web));
        for (rsa_only, expected) in [(true, &rsa), (false, &ecdsa)] {
            let (client, _) = connect(port, HOST, &speaking(&servers, rsa_only)).unwrap();
            let shown = client.stream_ref().conn.peer_certificates().unwrap();
            assert_eq!(shown[0], expected.der, "RSA only: {rsa_only}");
        }
    }
}

#[test]
fn suites_and_versions_are_those_that_are_named() {
    let servers = Authority::new("servers");
    let rsa = servers.issue_rsa(&[HOST]);
    let web = Backend::start("web");
    let with = |suites: &[&str], max_version| ServerTls {
        cipher_suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        max_version,
        ..ServerTls::simple(Some(Arc::clone(&rsa.certificate)))
    };
    for (tls, rsa_only, expected) in [
        (
            with(&["ECDHE-RSA-AES128-GCM-SHA256"], TlsVersion::V1_3),
            true,
            Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ),
        (
            with(&["ECDHE-RSA-CHACHA20-POLY1305"], TlsVersion::V1_3),
            true,
            None,
        ),
        (
            with(&["ECDHE-RSA-CHACHA20-POLY1305"], TlsVersion::V1_2),
            false,
            Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        ),
    ] {
        let port = free_port();
        let _edge = Edge::start(listen(port, tls, &web));
        let met = connect(port, HOST, &speaking(&servers, rsa_only)).ok();
        let suite = met.and_then(|(client, _)| client.stream_ref().conn.negotiated_cipher_suite());
        assert_eq!(suite.map(|suite| suite.suite()), expected);
    }
}

#[test]
fn a_request_for_another_servers_host_is_misdirected() {
    let servers = Authority::new("servers");
    let both = servers.issue(&["a.com", "b.com"]);
    let port = free_port();
    let answering = |host: &str, text: &'static str| {
        let routes = vec![route(prefix("/"), direct(200, text))];
        let routes = Arc::new(RouteTable::new(
            "https.443",
            [Arc::new(virtual_host("*", routes))],
        ));
        let tls = ServerTls::simple(Some(Arc::clone(&both.certificate)));
        Arc::new(tls_server(&[host], TlsService::Http { tls, routes }))
    };
    let listeners = ListenerProtocol::Tls(vec![answering("a.com", "a"), answering("b.com", "b")]);
    let edge = Edge::start(Snap::default().listen_with(port, listeners));
    let config = showing(&servers, None);
    let (mut client, _) = connect(port, "a.com", &config).unwrap();
    for (host, status, text) in [
        ("a.com", 200, "a"),
        ("b.com", 421, ""),
        ("A.COM:443", 200, "a"),
        ("c.com", 421, ""),
        ("a.com", 200, "a"),
    ] {
        let reply = client.get(host, "/").unwrap();
        assert_eq!((reply.status, reply.text()), (status, text), "{host}");
    }
    // A client of HTTP/2 that has put b.com on its connection for a.com opens another one and is served.
    let answers = coalesced(port, &config);
    assert_eq!(answers, [StatusCode::MISDIRECTED_REQUEST, StatusCode::OK]);
    edge.expect_metric("istio_requests_total", &["response_code=\"421\""], 3);
}

/// Statuses of b.com over HTTP/2 connections for a.com and for b.com.
fn coalesced(port: u16, config: &Arc<ClientConfig>) -> Vec<StatusCode> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut statuses = Vec::new();
        for name in ["a.com", "b.com"] {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let tls = connector.connect(name.try_into().unwrap(), tcp).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(
                hyper_util::rt::TokioExecutor::new(),
                hyper_util::rt::TokioIo::new(tls),
            )
            .await
            .unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://b.com/").body(http_body_util::Empty::<bytes::Bytes>::new());
            statuses.push(sender.send_request(request.unwrap()).await.unwrap().status());
        }
        statuses
    })
}
